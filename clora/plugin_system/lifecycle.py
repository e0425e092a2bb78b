"""Lifecycle hooks: one typed method for each, and no way for a plugin that raises in one to stop the run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from clora.errors import reason
from clora.plugin_system.guard import tracing

if TYPE_CHECKING:
    from clora.contracts.run import RunInfo
    from clora.contracts.values import StepReport


@frozen
class LifecycleHook:
    """One plugin's implementation of one lifecycle hook, which may ask for fewer arguments than the hook has."""

    plugin: str
    hook: str
    arguments: tuple[str, ...]
    function: Callable[..., Any]

    def tell(self, **values: Any) -> None:
        """Call it; what it raises becomes a RuntimeWarning that names the plugin."""
        if tracing():
            print(f"trace: {self.hook}  ({self.plugin})", file=sys.stderr)
        try:
            self.function(*(values[name] for name in self.arguments))
        except (Exception, SystemExit) as error:  # someone else's code, which must not end a training run
            why = f"{type(error).__name__}: {reason(error)}"
            warnings.warn(f"plugin {self.plugin}: {self.hook} raised {why}", RuntimeWarning, stacklevel=3)


@frozen
class LifecycleHooks:
    """All implementations of lifecycle hooks, in the order in which their plugins were found."""

    all: Sequence[LifecycleHook]

    def run_started(self, run: RunInfo) -> None:
        """Tell that a run starts or resumes."""
        self._tell("clora_run_started", run=run)

    def step_finished(self, run: RunInfo, report: StepReport) -> None:
        """Tell that a cycle is done."""
        self._tell("clora_step_finished", run=run, report=report)

    def checkpoint_saved(self, run: RunInfo, step: int, path: Path) -> None:
        """Tell that a checkpoint is whole on disk."""
        self._tell("clora_checkpoint_saved", run=run, step=step, path=path)

    def run_finished(self, run: RunInfo, results: dict[str, Any]) -> None:
        """Tell that every stage is done, with the evaluation's results."""
        self._tell("clora_run_finished", run=run, results=results)

    def _tell(self, hook: str, **values: Any) -> None:
        for implementation in self.all:
            if implementation.hook == hook:
                implementation.tell(**values)

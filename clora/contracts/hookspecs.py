"""Every hook of clora, in one place: sixteen that register components, one for commands, four that observe a run.

A plugin is a module or object under the entry-point group `clora.plugins` whose functions carry `@hookimpl`. These
hooks are called before anyone knows what a recipe needs: name a class by its place,
`Component("mine", "package.module:Mine")`.
"""

# pyright: reportReturnType=false
# (a hook's specification has a signature and a sentence, and no body to return anything from)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from clora.contracts.command import Command
    from clora.contracts.component import Component
    from clora.contracts.run import RunInfo
    from clora.contracts.values import StepReport

#: the version of these hooks and of the protocols behind them; a plugin may say `clora_hook_version = 1` in its module
HOOK_VERSION = 1

hookspec = pluggy.HookspecMarker("clora")
hookimpl = pluggy.HookimplMarker("clora")

#: kind of component -> hook that registers it; a kind is the recipe section where it may stand, but for those below
KINDS = {
    "teachers": "clora_teachers",
    "router": "clora_routers",
    "prompts": "clora_prompts",
    "simulations": "clora_simulations",
    "losses": "clora_losses",
    "backbone": "clora_backbones",
    "dataset": "clora_datasets",
    "metrics": "clora_metrics",
    "kernels": "clora_kernels",
    "optimizer": "clora_optimizers",
    "captioner": "clora_captioners",
    "exporters": "clora_exporters",
    "observers": "clora_observers",
    "reporters": "clora_reporters",
    "merge": "clora_mergers",
    "lora_layouts": "clora_lora_layouts",
}
#: kinds that no recipe names: whatever is installed serves
UNNAMED_KINDS = frozenset({"lora_layouts"})
#: the hook that registers what the command line may name
COMMANDS = "clora_commands"


@hookspec
def clora_teachers() -> list[Component]:
    """Register banks of effect LoRAs (protocol `Teachers`)."""


@hookspec
def clora_routers() -> list[Component]:
    """Register routers, which choose stream and teacher for every row (protocol `Router`)."""


@hookspec
def clora_prompts() -> list[Component]:
    """Register prompt strategies, which choose what student and teacher read (protocol `PromptStrategy`)."""


@hookspec
def clora_simulations() -> list[Component]:
    """Register simulation schedules, which bring the student to states it will meet (protocol `SimulationSchedule`)."""


@hookspec
def clora_losses() -> list[Component]:
    """Register losses of the student or the critic (protocol `Loss`)."""


@hookspec
def clora_backbones() -> list[Component]:
    """Register frozen edit models (protocol `Backbone`)."""


@hookspec
def clora_datasets() -> list[Component]:
    """Register sources of pictures (protocol `Dataset`; `Truth` if the right answer is known)."""


@hookspec
def clora_metrics() -> list[Component]:
    """Register metrics over an evaluation's pictures (protocol `Metric`)."""


@hookspec
def clora_kernels() -> list[Component]:
    """Register computations of a LoRA linear (protocol `LoraKernel`)."""


@hookspec
def clora_optimizers() -> list[Component]:
    """Register rules by which gradients change the weights (protocol `Optimizer`)."""


@hookspec
def clora_captioners() -> list[Component]:
    """Register writers of captions (protocol `Captioner`)."""


@hookspec
def clora_exporters() -> list[Component]:
    """Register what adds files beside an exported LoRA (protocol `Exporter`)."""


@hookspec
def clora_observers() -> list[Component]:
    """Register what watches the training of a run (protocol `Observer`)."""


@hookspec
def clora_mergers() -> list[Component]:
    """Register ways to make one LoRA of several without training (protocol `Merger`), for `serve.adapter: merge`."""


@hookspec
def clora_lora_layouts() -> list[Component]:
    """Register ways to name the tensors of LoRA files (protocol `LoraLayout`), made without keys."""


@hookspec
def clora_reporters() -> list[Component]:
    """Register reporters, which tell people of a finished run (protocol `Reporter`)."""


@hookspec
def clora_commands() -> list[Command]:
    """Register commands of `clora` (a `Command`: name, help line and module, which is imported when it is called)."""


@hookspec
def clora_run_started(run: RunInfo) -> None:
    """Observe that a run starts or resumes; what it returns is ignored."""


@hookspec
def clora_step_finished(run: RunInfo, report: StepReport) -> None:
    """Observe a finished cycle with its losses and its cost."""


@hookspec
def clora_checkpoint_saved(run: RunInfo, step: int, path: Path) -> None:
    """Observe that a checkpoint is whole on disk."""


@hookspec
def clora_run_finished(run: RunInfo, results: dict) -> None:
    """Observe that every stage of a run is done, with the evaluation's results."""

"""What the installed plugins offer: components by kind and name, and lifecycle hooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from clora.errors import CloraError, hint, nearest, quoted, reason
from clora.plugin_system.commands import RegisteredCommand
from clora.plugin_system.lifecycle import LifecycleHook, LifecycleHooks
from clora.plugin_system.origin import Origin
from clora.plugin_system.source_hash import source_digest

if TYPE_CHECKING:
    from clora.contracts.component import Component
    from clora.contracts.run import RunInfo
    from clora.contracts.values import StepReport


#: missing plugins that a sentence about an unknown component names
MOST_SUSPECTS = 3


@frozen
class Plugin:
    """One entry point: whose it is, what became of it and, if it was loaded, what it offers."""

    name: str
    distribution: str
    version: str
    state: Literal["loaded", "broken", "blocked"]
    reason: str = ""
    components: tuple[Registered, ...] = ()
    commands: tuple[RegisteredCommand, ...] = ()
    lifecycle: tuple[LifecycleHook, ...] = ()

    def __str__(self) -> str:
        return f"{quoted(self.name)} of {self.distribution} {self.version}"


@frozen
class Registered(Origin):
    """A component with its origin."""

    kind: str
    component: Component

    @property
    def name(self) -> str:
        """What recipes write after `use:`."""
        return self.component.name

    @property
    def code(self) -> str:
        """What its numbers depend on beside its keys: distribution, version, and the hash of its package's source."""
        return f"{self.distribution} {self.version} {source_digest(self.cls.__module__)}".rstrip()

    @property
    def cls(self) -> type:
        """The component's class, imported now. Raises CloraError, naming the plugin, where it cannot be."""
        try:
            return self.component.load()
        except CloraError as error:
            raise CloraError(f"{self.kind}: {quoted(self.name)} of plugin {self.giver} is broken: {error}") from error


@frozen
class Catalogue:
    """Every installed plugin and what can be used of it."""

    plugins: tuple[Plugin, ...]

    @property
    def components(self) -> tuple[Registered, ...]:
        """The components of all loaded plugins."""
        return tuple(component for plugin in self.plugins for component in plugin.components)

    @property
    def commands(self) -> tuple[RegisteredCommand, ...]:
        """The commands of all loaded plugins; the core's own are not among them."""
        return tuple(command for plugin in self.plugins for command in plugin.commands)

    @property
    def lifecycle(self) -> LifecycleHooks:
        """The lifecycle hooks of all loaded plugins."""
        return LifecycleHooks([hook for plugin in self.plugins for hook in plugin.lifecycle])

    def find(self, kind: str, name: str) -> Registered:
        """The component that a recipe means by `use: name` (or `distribution:name`) in section `kind`.

        Raises CloraError where no component or more than one has this name.
        """
        distribution, _, word = name.rpartition(":")
        offered = [c for c in self.components if c.kind == kind and distribution in ("", c.distribution)]
        matches = [c for c in offered if c.name == word]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise CloraError(_ambiguous(kind, word, matches))
        raise NoComponentError(self, kind, name)

    def why_not(self, kind: str, name: str) -> str:
        """The sentence about a name that no component has: the nearest one, and the plugins that may have given it."""
        distribution, _, word = name.rpartition(":")
        offered = [c for c in self.components if c.kind == kind and distribution in ("", c.distribution)]
        words = {c.name if not distribution else f"{distribution}:{c.name}" for c in offered}
        known = hint(name, words) or "; no loaded plugin gives any"
        message = f"{kind} has no component {quoted(name)}{known}"
        suspects = self._may_have_given(distribution, word, unlike=nearest(name, words) is None)
        told = [f"plugin {p} is {p.state}: {reason(p.reason)}" for p in suspects[:MOST_SUSPECTS]]
        more = len(suspects) - len(told)
        rest = [f"{more} more are missing, see `clora plugins`"] if more else []
        return "; ".join([message, *told, *rest])

    def _may_have_given(self, distribution: str, word: str, unlike: bool) -> list[Plugin]:
        """The missing plugins that a word may belong to; any of them, where the word is like no known one."""
        missing = [p for p in self.plugins if p.state != "loaded" and distribution in ("", p.distribution)]
        alike = [p for p in missing if distribution or nearest(word, [p.name, p.distribution])]
        return alike or (missing if unlike else [])

    def run_started(self, run: RunInfo) -> None:
        """Tell every plugin with this hook that a run starts or resumes."""
        self.lifecycle.run_started(run)

    def step_finished(self, run: RunInfo, report: StepReport) -> None:
        """Tell every plugin with this hook that a cycle is done."""
        self.lifecycle.step_finished(run, report)

    def checkpoint_saved(self, run: RunInfo, step: int, path: Path) -> None:
        """Tell every plugin with this hook that a checkpoint is whole on disk."""
        self.lifecycle.checkpoint_saved(run, step, path)

    def run_finished(self, run: RunInfo, results: dict[str, Any]) -> None:
        """Tell every plugin with this hook that all stages are done."""
        self.lifecycle.run_finished(run, results)


class NoComponentError(CloraError):
    """No component has this name; the sentence is made when it is told, since a recipe may have thousands of them."""

    def __init__(self, catalogue: Catalogue, kind: str, name: str) -> None:
        super().__init__(kind, name)
        self.catalogue, self.kind, self.name = catalogue, kind, name

    def __str__(self) -> str:
        return self.catalogue.why_not(self.kind, self.name)


def _ambiguous(kind: str, word: str, matches: Sequence[Registered]) -> str:
    owners = sorted({match.distribution for match in matches})
    if len(owners) > 1:
        choice = " or ".join(f"{owner}:{word}" for owner in owners)
        return f"{kind} has {len(owners)} components named {quoted(word)}, from {' and '.join(owners)}; write {choice}"
    plugins = " and ".join(sorted(match.plugin for match in matches))
    both = f"plugins {plugins} of {owners[0]} both give {kind} a component named {quoted(word)}"
    return f"{both}; one of them must be blocked"

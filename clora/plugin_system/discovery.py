"""The entry-point group `clora.plugins` -> a Catalogue, with every plugin's fate told apart.

A plugin that cannot be imported, misspells a hook or registers nonsense is set aside with its reason; the others work.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

import attrs
import pluggy

from clora.contracts import hookspecs
from clora.contracts.command import Command
from clora.contracts.component import Component
from clora.contracts.hookspecs import COMMANDS, HOOK_VERSION, KINDS
from clora.contracts.version import __version__
from clora.errors import hint, quoted, reason
from clora.lora_io.grammar import BUILT_IN
from clora.lora_io.layouts import install
from clora.plugin_system.catalogue import Catalogue, Plugin, Registered
from clora.plugin_system.commands import RegisteredCommand
from clora.plugin_system.core_commands import clora_commands
from clora.plugin_system.lifecycle import LifecycleHook
from clora.plugin_system.lora_layouts import LAYOUTS, RegisteredLayout

__all__ = ["BLOCK_VARIABLE", "GROUP", "Catalogue", "Plugin", "Registered", "discover"]

GROUP = "clora.plugins"
BLOCK_VARIABLE = "CLORA_BLOCK_PLUGINS"

KNOWN_HOOKS = frozenset(
    name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("clora_")
)

T = TypeVar("T", Component, Command)

MOST_OF_A_REASON = 400  # characters of what is wrong with one plugin


class _PluginError(Exception):
    """Why one plugin cannot be used, in one line."""


def discover() -> Catalogue:
    """Every plugin of the installed distributions, loaded unless `CLORA_BLOCK_PLUGINS` names its entry point.

    From then on this process reads LoRA files in their layouts too.
    """
    blocked = {name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(",")}
    found = _with_owners(importlib.metadata.entry_points(group=GROUP))
    catalogue = Catalogue(tuple(_plugin(entry_point, owner, blocked) for entry_point, owner in found))
    install(RegisteredLayout(each) for each in catalogue.components if each.kind == LAYOUTS)
    return catalogue


def _with_owners(entry_points: Iterable[EntryPoint]) -> list[tuple[EntryPoint, tuple[str, str]]]:
    """The entry points with name and version of their distributions, in the order of the names.

    Each distribution's metadata is read once: parsing it anew for every plugin took most of a discovery's time.
    """
    owners: dict[int, tuple[str, str]] = {}
    found = []
    for entry_point in entry_points:
        distribution = entry_point.dist
        if distribution is None:
            owner = "unknown", "0"
        elif id(distribution) in owners:
            owner = owners[id(distribution)]
        else:
            metadata = distribution.metadata
            owner = owners[id(distribution)] = metadata["Name"], metadata["Version"]
        found.append((entry_point, owner))
    return sorted(found, key=lambda pair: (pair[1][0].lower(), pair[0].name))


def _plugin(entry_point: EntryPoint, owner: tuple[str, str], blocked: set[str]) -> Plugin:
    plugin = Plugin(entry_point.name, *owner, "loaded")
    if entry_point.name in blocked:
        return attrs.evolve(plugin, state="blocked", reason=f"{BLOCK_VARIABLE} names it")
    try:
        source = _imported(entry_point)
        _refuse_other_version(plugin, source)
        hooks = _Hooks(plugin, source)
        return attrs.evolve(
            plugin,
            components=tuple(hooks.components()),
            commands=tuple(hooks.commands()),
            lifecycle=tuple(hooks.lifecycle()),
        )
    except _PluginError as error:
        why = str(error)
    except Exception as error:  # the plugin is someone else's object, and even looking at it may raise
        why = f"{type(error).__name__}: {error}"
    return attrs.evolve(plugin, state="broken", reason=reason(" ".join(why.split()), MOST_OF_A_REASON))


def _imported(entry_point: EntryPoint) -> Any:
    try:
        return entry_point.load()
    except (Exception, SystemExit) as error:  # someone else's module, which may do anything when it is imported
        raise _PluginError(f"cannot import {entry_point.value}: {type(error).__name__}: {error}") from error


def _refuse_other_version(plugin: Plugin, source: Any) -> None:
    """Raise where a plugin says that it is written for other hooks than these."""
    asked = getattr(source, "clora_hook_version", HOOK_VERSION)
    if asked != HOOK_VERSION:
        versions = f"version {quoted(asked)} of the hooks, and clora {__version__} has version {HOOK_VERSION}"
        remedy = f"install a {plugin.distribution} for this clora, or a clora for that {plugin.distribution}"
        raise _PluginError(f"it is written for {versions}; {remedy}")


class _Hooks:
    """One plugin's hooks, in a pluggy manager of their own so that what they refuse concerns no other plugin."""

    def __init__(self, plugin: Plugin, source: Any) -> None:
        self.plugin = plugin
        self.origin = plugin.name, plugin.distribution, plugin.version
        self.manager = pluggy.PluginManager("clora")
        self.manager.add_hookspecs(hookspecs)
        self.refuse_unknown(source)
        try:
            self.manager.register(source, plugin.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise _PluginError(str(error)) from error

    def refuse_unknown(self, source: Any) -> None:
        """Raise where a function is marked as a hook that nobody will ever call, which pluggy would let pass."""
        marked = False
        for name in dir(source):
            options = self.manager.parse_hookimpl_opts(source, name)
            if options is None:
                continue
            marked = True
            hook = options.get("specname") or name
            if hook not in KNOWN_HOOKS:
                raise _PluginError(f"no hook is named {quoted(hook)}{hint(hook, KNOWN_HOOKS)}")
            if options.get("wrapper") or options.get("hookwrapper"):
                raise _PluginError(f"{hook} is a wrapper; clora's hooks take none")
        if not marked:
            raise _PluginError("it has no function marked with @hookimpl")

    def implementations(self, hook: str) -> list[Any]:
        caller = self.manager.subset_hook_caller(hook, [])
        return caller.get_hookimpls()

    def components(self) -> Iterator[Registered]:
        """All components that the plugin registers."""
        for kind, hook in KINDS.items():
            names: set[str] = set()
            for implementation in self.implementations(hook):
                for component in _registered(hook, implementation.function, Component):
                    if component.name in names:
                        raise _PluginError(f"{hook} registers {quoted(component.name)} twice")
                    if kind == LAYOUTS and component.name in BUILT_IN:
                        raise _PluginError(f"{hook}: {quoted(component.name)} is clora's own layout; choose another")
                    names.add(component.name)
                    yield Registered(*self.origin, kind, component)

    def commands(self) -> Iterator[RegisteredCommand]:
        """All commands that the plugin registers; raises where one has the name of another, or of the core's."""
        taken = {command.name for command in clora_commands()}
        names: set[str] = set()
        for implementation in self.implementations(COMMANDS):
            for command in _registered(COMMANDS, implementation.function, Command):
                if command.name in taken:
                    raise _PluginError(
                        f"{COMMANDS}: {quoted(command.name)} is a command of clora's own; choose another"
                    )
                if command.name in names:
                    raise _PluginError(f"{COMMANDS} registers {quoted(command.name)} twice")
                names.add(command.name)
                yield RegisteredCommand(*self.origin, command)

    def lifecycle(self) -> Iterator[LifecycleHook]:
        """The plugin's lifecycle hooks."""
        for caller in self.manager.get_hookcallers(self.manager.get_plugin(self.plugin.name)) or ():
            if caller.name not in (*KINDS.values(), COMMANDS):
                for implementation in caller.get_hookimpls():
                    arguments = tuple(implementation.argnames)
                    yield LifecycleHook(self.plugin.name, caller.name, arguments, implementation.function)


def _registered(hook: str, function: Callable[[], Any], expected: type[T]) -> list[T]:
    """What a registration hook returns; raises where it is not what the hook promises."""
    promised = f"list[{expected.__name__}]"
    try:
        found = function()
    except Exception as error:  # someone else's code, which may raise anything
        raise _PluginError(f"{hook} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, list):
        raise _PluginError(f"{hook} must return {promised}, not {type(found).__name__}")
    for one in found:
        if not isinstance(one, expected):
            raise _PluginError(f"{hook} must return {promised}, but the list holds {quoted(one)}")
        problem = one.problem()
        if problem is not None:
            raise _PluginError(f"{hook}: {problem}")
    return found

"""The part of a world that a method has a place for, in the method's order.

A world says what the losses, the critic and the warm start of its models take; which of them there are is the method's.
"""

from __future__ import annotations

from types import NoneType
from typing import get_args, get_type_hints

import attrs
from attrs import field, frozen

from clora.config.messages import dotted
from clora.config.problems import Problem
from clora.config.schema import Recipe
from clora.config.sections import component_kind, names_components
from clora.config.tree import Entry, Keypath, Keys, Node
from clora.errors import nearest, quoted


def _may_be_absent(hint: object) -> bool:
    members = get_args(hint)
    return NoneType in members and any(isinstance(one, type) and attrs.has(one) for one in members)


#: sections that a recipe has only where somebody writes them, such as `critic`
_OPTIONAL = frozenset(name for name, hint in get_type_hints(Recipe).items() if _may_be_absent(hint))


@frozen
class Fit:
    """The world's part, and what of the rest looks like a misspelt name."""

    tree: Keys
    doubts: list[Problem] = field(factory=list)


def fitted(world: Keys, method: Keys) -> Fit:
    """The part of a world's tree that a method's merged tree has a place for."""
    fit = Fit(world)
    return attrs.evolve(fit, tree=_fitted(world, method, (), fit.doubts))


def _fitted(world: Keys, method: Keys, path: Keypath, doubts: list[Problem]) -> Keys:
    entries: dict[str, Entry] = {}
    for key, entry in world.entries.items():
        here, other = (*path, key), method.get(key)
        if other is None and _waits(entry.value, here):
            doubts += _misspelt(entry, here, world, method)
        elif isinstance(entry.value, Keys) and component_kind(here) is None:
            below = other if isinstance(other, Keys) else Keys({}, entry.value.mark)
            entries[key] = Entry(entry.key, _fitted(entry.value, below, here, doubts))
        else:
            entries[key] = entry
    return Keys(_in_order(entries, method) if names_components(path) else entries, world.mark)


def _waits(node: Node, path: Keypath) -> bool:
    """True for what only adds to a method: a named component without its `use`, a section that may be absent."""
    if names_components(path[:-1]):
        return not (isinstance(node, Keys) and "use" in node.entries)
    return len(path) == 1 and path[0] in _OPTIONAL


def _in_order(entries: dict[str, Entry], method: Keys) -> dict[str, Entry]:
    """The world's own components, then a place for each of the method's: losses are summed in the method's order."""
    own = {name: entry for name, entry in entries.items() if name not in method.entries}
    empty = {name: Entry(entry.key, Keys({}, entry.key)) for name, entry in method.entries.items()}
    return {**own, **empty, **{name: entry for name, entry in entries.items() if name in method.entries}}


def _misspelt(entry: Entry, path: Keypath, world: Keys, method: Keys) -> list[Problem]:
    """A name that the method lacks and nearly has; a method may well lack what a world is ready for."""
    known = [name for name in method.entries if name not in world.entries]
    close = nearest(path[-1], known) if names_components(path[:-1]) else None
    if close is None:
        return []
    why = f"{dotted(path)}: the recipe has nothing of this name, so it changes nothing; did you mean {quoted(close)}?"
    return [Problem(entry.key, why)]

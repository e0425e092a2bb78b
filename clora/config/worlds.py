"""The world that stands under a method: model, data and every value that belongs to them, such as rates and sizes.

A method says what is trained; its files name at most the world that stands under it (`world:`, or `default_world:`,
which any other replaces). A world's values are the lowest layer: a method that states one has its own. What a world
says of a part that the method does not have, such as the guidance of a loss, is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from clora.config.package_files import recipe_file
from clora.config.problems import Problem
from clora.config.scalars import as_text, found
from clora.config.tree import Keys, Mark, Node, is_null
from clora.config.yaml_parser import neighbour
from clora.errors import CloraError, quoted

WORLD, DEFAULT_WORLD, METHODS, EXTENDS = "world", "default_world", "methods", "extends"
MOST_METHODS = 100  # that a world says something for
#: what a method's file says beside a recipe's sections
OF_METHODS = (EXTENDS, WORLD, DEFAULT_WORLD)


def real(file: Path) -> Path:
    """The file itself, symbolic links followed as far as they lead somewhere."""
    return Path(os.path.realpath(file))


@frozen
class Layer:
    """One file of a recipe and its parents; `tree` is all that it says, `extends` and `world` too."""

    file: Path
    tree: Keys

    @property
    def values(self) -> Keys:
        """What it gives the recipe."""
        return self.tree.without(*OF_METHODS, METHODS)


@frozen
class Named:
    """A world's file and the place that names it."""

    file: Path
    mark: Mark


def named_world(layers: Sequence[Layer]) -> tuple[Named | None, list[Problem]]:
    """The world that a recipe names, its own files last; None where it names none or says `world: null`."""
    problems: list[Problem] = []
    named: Named | None = None
    for layer in reversed(layers):
        node = layer.tree.get(WORLD)
        if node is None:
            continue
        if is_null(node):
            return named, problems
        other = _named(WORLD, node, problems)
        if named is not None and other is not None and real(other.file) != real(named.file):
            here, there = (Mark.of_file(each.file).source for each in (named, other))
            first = f"two worlds: {here} here and {there} at {other.mark}"
            problems.append(Problem(named.mark, f"{first}; a recipe stands on one, and `--world FILE` replaces both"))
            return named, problems
        named = named or other
    if named is None and not problems:
        node = next((node for layer in reversed(layers) if (node := layer.tree.get(DEFAULT_WORLD)) is not None), None)
        named = None if node is None or is_null(node) else _named(DEFAULT_WORLD, node, problems)
    return named, problems


def _named(key: str, node: Node, problems: list[Problem]) -> Named | None:
    text = as_text(node)
    if text is None:
        problems.append(Problem(node.mark, f"expected one world's file under `{key}`, {found(node)}"))
        return None
    try:
        return Named(recipe_file(text, node.mark.folder), node.mark)
    except CloraError as error:
        problems.append(Problem(node.mark, error))
        return None


def method_problems(layers: Sequence[Layer]) -> Iterator[Problem]:
    """A recipe's file that says what only a world says."""
    for layer in layers:
        entry = layer.tree.entries.get(METHODS)
        if entry is not None:
            message = f"{METHODS} is what a world says; this file is a method's or a recipe's"
            yield Problem(entry.key, message)


def world_problems(world: Keys) -> Iterator[Problem]:
    """A world that stands on another one."""
    for key in OF_METHODS:
        entry = world.entries.get(key)
        if entry is not None and not is_null(entry.value):
            message = (
                f"{key}: a world stands on no other file; say here all that it is, and lay changes on it with `--with`"
            )
            yield Problem(entry.key, message)


def overlay_problems(overlay: Keys) -> Iterator[Problem]:
    """A world that is laid on top of a recipe, where it would not replace the one below."""
    for key in (WORLD, DEFAULT_WORLD, METHODS):
        entry = overlay.entries.get(key)
        if entry is not None:
            why = "is said by a world" if key == METHODS else "names what stands under a recipe"
            yield Problem(entry.key, f"{key} {why}, not by a file that is laid on top; give a world by `--world FILE`")


def overlay_doubts(world: Path, below: Keys, overlay: Keys) -> Iterator[Problem]:
    """Another model that is laid on top: the rates, sizes and metrics of the world below stay."""
    uses = [part.get("use") if isinstance(part := tree.get("backbone"), Keys) else None for tree in (below, overlay)]
    lower, upper = (None if use is None else as_text(use) for use in uses)
    if lower is not None and upper is not None and lower != upper:
        mark = overlay.entries["backbone"].key
        why = f"lays another model on {world.name}, whose rates, sizes and metrics stay; a whole world is given by"
        yield Problem(mark, f"backbone: {why} `--world FILE`, which replaces it")


def of_methods(world: Keys, layers: Sequence[Layer], problems: list[Problem]) -> Iterator[Keys]:
    """What a world says for some methods alone (`methods: {FILE: {...}}`): the parts for a recipe's files, in order.

    Mistakes are added to `problems`.
    """
    node = world.get(METHODS)
    if node is None or is_null(node):
        return
    if not isinstance(node, Keys):
        problems.append(Problem(node.mark, f"expected a mapping of a method's file -> sections, {found(node)}"))
        return
    if len(node.entries) > MOST_METHODS:
        message = f"{METHODS}: says something for {len(node.entries):,} methods; at most {MOST_METHODS} are read"
        problems.append(Problem(node.mark, message))
        return
    parts: dict[Path, Keys] = {}
    for name, entry in node.entries.items():
        try:
            file = recipe_file(name, entry.key.folder)
        except CloraError as error:
            problems.append(Problem(entry.key, error))
            continue
        if not file.is_file():
            message = f"{METHODS}: there is no method's file {quoted(name)}{neighbour(file)}"
            problems.append(Problem(entry.key, message))
        elif not isinstance(entry.value, Keys):
            problems.append(
                Problem(entry.value.mark, f"{METHODS}: expected a mapping of sections, {found(entry.value)}")
            )
        else:
            parts[real(file)] = entry.value
    yield from (parts[file] for layer in layers if (file := real(layer.file)) in parts)

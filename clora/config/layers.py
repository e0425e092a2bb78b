"""One tree from several texts: the world, a recipe's parents, the recipe, the `--with` files and the `--set` values.

Mappings are merged key by key; anything else is replaced. A null takes away what lies below it. A component that
changes its `use:` starts afresh, for the keys of another component would not fit it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path

from attrs import evolve, frozen

from clora.config.names import MAX_KEY, text_problem
from clora.config.package_files import recipe_file
from clora.config.problems import Problem, RecipeError
from clora.config.scalars import as_text, found
from clora.config.sections import component_kind
from clora.config.tree import Entry, Keypath, Keys, Mark, Node, Text, is_null
from clora.config.world_fit import fitted
from clora.config.worlds import (
    DEFAULT_WORLD,
    EXTENDS,
    METHODS,
    OF_METHODS,
    WORLD,
    Layer,
    Named,
    method_problems,
    named_world,
    of_methods,
    overlay_doubts,
    overlay_problems,
    real,
    world_problems,
)
from clora.config.yaml_parser import MAX_BYTES, MAX_DEPTH, parse, parse_file
from clora.errors import CloraError, quoted, shown

MAX_PARENTS = 16
MAX_WITH, MAX_SETS = 16, 1_000  # files and values laid on top, each merged into the whole
MAX_ALL_BYTES = 2 * MAX_BYTES  # of a recipe, its parents and all that is laid on top
OUTWARD = ("name", "title")  # what a run is called, which no lower layer says
MAX_NAME = 60  # characters of a file's name where several are listed


@frozen
class Layered:
    """The merged tree, and the mistakes that did not keep it from being merged."""

    tree: Keys
    problems: tuple[Problem, ...]
    world: Path | None = None  # what stands under the recipe
    doubts: tuple[Problem, ...] = ()  # what is probably not meant so


def layered(
    file: Path,
    with_files: Sequence[Path] = (),
    sets: Sequence[str] = (),
    named_by: Mark | None = None,
    world: Path | None = None,
) -> Layered:
    """The whole tree of a recipe; `named_by` is the place of another recipe that names this one.

    `world` replaces the one that the recipe names. Raises RecipeError where a text cannot be read to its end: what it
    lacks would only be reported as missing.
    """
    reading = _Reading()
    layers = reading.chain(file, named_by)
    reading.problems.extend(method_problems(layers))
    top = Mark.of_file(file, 1, 1, named_by)
    named = Named(world, Mark(f"{top.source} --world", top.folder)) if world else reading.named_world(layers)
    tree = merged(layer.values for layer in layers)
    if named is not None:
        fit = fitted(reading.world(named, layers), tree)
        reading.doubts += fit.doubts
        tree = merged([fit.tree, *(layer.values for layer in layers)])
    with_mark = Mark(f"{top.source} --with", top.folder)
    for other in with_files[:MAX_WITH]:
        overlay = reading.overlay(other, with_mark)
        reading.doubts += [] if named is None else overlay_doubts(named.file, tree, overlay)
        tree = merge(tree, overlay)
    for assignment in sets[:MAX_SETS]:
        tree = merge(tree, reading.assignment(assignment))
    for option, given, most in (("--with", with_files, MAX_WITH), ("--set", sets, MAX_SETS)):
        if len(given) > most:
            reading.give_up(Problem(Mark(option, top.folder), f"{len(given):,} are given; at most {most:,} are read"))
    if reading.unreadable:
        raise RecipeError(reading.problems)
    under = None if named is None else named.file.absolute()
    return Layered(Keys(tree.entries, top), tuple(reading.problems), under, tuple(reading.doubts))


class _Reading:
    """The mistakes met while texts are read, all of them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.doubts: list[Problem] = []
        self.unreadable = False
        self.size = 0

    def give_up(self, *problems: Problem) -> Keys:
        self.problems.extend(problems)
        self.unreadable = True
        return Keys({}, problems[0].mark)

    def file(self, file: Path, named_by: Mark | None) -> Keys:
        """All that one file says; `named_by` is the place that names it."""
        parsed = parse_file(file, named_by)
        if parsed.tree is None:
            return self.give_up(*parsed.problems)
        self.problems.extend(parsed.problems)
        self.size += parsed.size
        if self.size > MAX_ALL_BYTES:
            message = f"the files of this recipe are together larger than {MAX_ALL_BYTES:,} bytes"
            return self.give_up(Problem(parsed.tree.mark, message))
        if is_null(parsed.tree):
            return Keys({}, parsed.tree.mark)
        if not isinstance(parsed.tree, Keys):
            message = f"expected a mapping of sections, {found(parsed.tree)}"
            return self.give_up(Problem(parsed.tree.mark, message))
        return _spelt_out(parsed.tree)

    def chain(self, file: Path, named_by: Mark | None, below: tuple[Path, ...] = ()) -> list[Layer]:
        """A file after its parents; `below` are the files that lead here, `named_by` the place that names it."""
        tree = self.file(file, named_by)
        parent = tree.get(EXTENDS)
        above = [] if parent is None or is_null(parent) else self.parent(file, parent, below)
        # A parent's name and title are its own: a child that kept them would pass for it in every table.
        return [*(evolve(layer, tree=layer.tree.without(*OUTWARD)) for layer in above), Layer(file, tree)]

    def parent(self, file: Path, node: Node, below: tuple[Path, ...]) -> list[Layer]:
        """The layers of the file that `extends` names."""
        name = as_text(node)
        if name is None:
            return self.no_parent(node, f"expected one recipe file under `extends`, {found(node)}")
        try:
            parent = recipe_file(name, node.mark.folder)
        except CloraError as error:
            return self.no_parent(node, f"extends: {error}")
        lineage = (*below, real(file))
        if real(parent) in lineage:
            circle = (*lineage[lineage.index(real(parent)) :], parent)
            return self.no_parent(node, f"recipes extend one another in a circle: {names_of(circle)}")
        if len(lineage) > MAX_PARENTS:
            return self.no_parent(node, f"more than {MAX_PARENTS} recipes extend one another")
        return self.chain(parent, node.mark, lineage)

    def no_parent(self, node: Node, message: str) -> list[Layer]:
        self.give_up(Problem(node.mark, message))
        return []

    def named_world(self, layers: Sequence[Layer]) -> Named | None:
        """The world that the recipe's own files name; without it other sections would only be reported as missing."""
        named, problems = named_world(layers)
        if problems:
            self.give_up(*problems)
        return named

    def world(self, named: Named, layers: Sequence[Layer]) -> Keys:
        """The world's tree, with what it says for this recipe's files alone."""
        tree = self.file(named.file, named.mark)
        self.problems.extend(world_problems(tree))
        parts = [_spelt_out(part) for part in of_methods(tree, layers, self.problems)]
        return merged(part.without(*OUTWARD, *OF_METHODS, METHODS) for part in (tree, *parts))

    def overlay(self, file: Path, mark: Mark) -> Keys:
        """A `--with` file on its parents; what is laid on top must not rename the recipe it is laid on."""
        layers = self.chain(file, mark)
        for layer in layers:
            self.problems.extend(overlay_problems(layer.tree))
        return merged(layer.values for layer in layers).without(*OUTWARD)

    def assignment(self, text: str) -> Keys:
        """The tree of one `--set a.b=value`."""
        dotted, equals, value = text.partition("=")
        path = tuple(part.strip() for part in dotted.split("."))
        mark = Mark.of_set(dotted.strip())
        if not equals or not all(path):
            return self.give_up(Problem(Mark.of_set(text), "expected key=value, such as train.steps=200"))
        problem = _key_problem(path) or (f"is larger than {MAX_BYTES:,} bytes" if len(value) > MAX_BYTES else None)
        if problem is not None:
            return self.give_up(Problem(mark, problem))
        parsed = parse(value, lambda line, column: mark)
        if parsed.tree is None:
            return self.give_up(*parsed.problems)
        self.problems.extend(parsed.problems)
        node = Text("", True, mark) if not value.strip() else parsed.tree
        for key in reversed(path):
            node = Keys({key: Entry(mark, node)}, mark)
        assert isinstance(node, Keys)
        self.problems.extend(overlay_problems(node))
        return _spelt_out(node).without(WORLD, DEFAULT_WORLD, METHODS)


def names_of(files: Sequence[Path]) -> str:
    """Files that lead to one another: `a.yaml -> b.yaml -> a.yaml`; of many the two ends."""
    names = [shown(file.name, MAX_NAME) for file in files]
    if len(names) > 6:
        names[3:-3] = [f"... ({len(names) - 6} files)"]
    return " -> ".join(names)


def _key_problem(path: Keypath) -> str | None:
    """What is wrong with the key of a `--set`, which no YAML parser has seen."""
    if len(path) > MAX_DEPTH:
        return f"names {len(path):,} keys inside one another; a recipe is at most {MAX_DEPTH} deep"
    told = ((key, text_problem(key, MAX_KEY)) for key in path)
    return next((f"the key {quoted(key)} {problem}" for key, problem in told if problem), None)


def _spelt_out(tree: Keys, path: Keypath = ()) -> Keys:
    """The tree with every component's short form `router: pdsr` written out as `router: {use: pdsr}`."""
    return Keys({key: Entry(e.key, _spelt(e.value, (*path, key))) for key, e in tree.entries.items()}, tree.mark)


def _spelt(node: Node, path: Keypath) -> Node:
    if component_kind(path) is not None:
        short = isinstance(node, Text) and not node.is_null
        return Keys({"use": Entry(node.mark, node)}, node.mark) if short else node
    return _spelt_out(node, path) if isinstance(node, Keys) else node


def merged(trees: Iterable[Keys]) -> Keys:
    """Trees laid on one another, the lowest first."""
    return reduce(merge, trees)


def merge(lower: Keys, upper: Keys, path: Keypath = ()) -> Keys:
    """`upper` laid on `lower`."""
    if component_kind(path) is not None and _use(lower) is not None and _use(upper) not in (None, _use(lower)):
        return upper
    entries = dict(lower.entries)
    for key, entry in upper.entries.items():
        below = lower.get(key)
        if isinstance(below, Keys) and isinstance(entry.value, Keys):
            entries[key] = Entry(entry.key, merge(below, entry.value, (*path, key)))
        else:
            entries[key] = entry
    return Keys(entries, upper.mark)


def _use(component: Keys) -> str | None:
    use = component.get("use")
    return use.text if isinstance(use, Text) else None

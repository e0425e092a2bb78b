"""One tree from several texts: a recipe's parents, the recipe, the `--with` files and the `--set` values on top.

Mappings are merged key by key; anything else is replaced. A null takes away what lies below it. A component that
changes its `use:` starts afresh, for the keys of another component would not fit it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from clora.recipe.marks import parse, parse_file
from clora.recipe.problems import Problem, RecipeError
from clora.recipe.scalars import as_text, found
from clora.recipe.sections import component_kind
from clora.recipe.tree import Entry, Keypath, Keys, Mark, Node, Text, is_null

MAX_PARENTS = 16


@frozen
class Layered:
    """The merged tree, and the mistakes that did not keep it from being merged."""

    tree: Keys
    problems: tuple[Problem, ...]


def layered(file: Path, with_files: Sequence[Path] = (), sets: Sequence[str] = ()) -> Layered:
    """The whole tree of a recipe.

    Raises RecipeError where a text cannot be read to its end: what it lacks would only be reported as missing.
    """
    reading = _Reading()
    tree = reading.chain(file)
    for other in with_files:
        # A world or a patch laid on top must not rename the recipe it is laid on.
        tree = merge(tree, reading.chain(other).without("name", "title"))
    for assignment in sets:
        tree = merge(tree, reading.assignment(assignment))
    if reading.unreadable:
        raise RecipeError(reading.problems)
    return Layered(Keys(tree.entries, Mark.of_file(file, 1, 1)), tuple(reading.problems))


class _Reading:
    """The mistakes met while texts are read, all of them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.unreadable = False

    def give_up(self, *problems: Problem) -> Keys:
        self.problems.extend(problems)
        self.unreadable = True
        return Keys({}, problems[0].mark)

    def chain(self, file: Path, below: tuple[Path, ...] = (), blame: Mark | None = None) -> Keys:
        """A file laid on its parents; `below` are the files that lead here, `blame` the `extends` that named it."""
        parsed = parse_file(file, blame)
        if parsed.tree is None:
            return self.give_up(*parsed.problems)
        self.problems.extend(parsed.problems)
        if is_null(parsed.tree):
            return Keys({}, parsed.tree.mark)
        if not isinstance(parsed.tree, Keys):
            message = f"expected a mapping of sections, {found(parsed.tree)}"
            return self.give_up(Problem(parsed.tree.mark, message))
        tree = _spelt_out(parsed.tree, ())
        assert isinstance(tree, Keys)
        parent = tree.get("extends")
        if parent is None or is_null(parent):
            return tree.without("extends")
        # A parent's name and title are its own: a child that kept them would pass for it in every table.
        return merge(self.parent(file, parent, below).without("name", "title"), tree.without("extends"))

    def parent(self, file: Path, node: Node, below: tuple[Path, ...]) -> Keys:
        name = as_text(node)
        if name is None:
            return self.give_up(Problem(node.mark, f"expected one recipe file under `extends`, {found(node)}"))
        lineage = (*below, file.resolve())
        parent = node.mark.folder / name
        if parent.resolve() in lineage:
            way = " -> ".join(step.name for step in (*lineage[lineage.index(parent.resolve()) :], parent))
            return self.give_up(Problem(node.mark, f"recipes extend one another in a circle: {way}"))
        if len(lineage) > MAX_PARENTS:
            return self.give_up(Problem(node.mark, f"more than {MAX_PARENTS} recipes extend one another"))
        return self.chain(parent, lineage, node.mark)

    def assignment(self, text: str) -> Keys:
        """The tree of one `--set a.b=value`."""
        dotted, equals, value = text.partition("=")
        path = tuple(part.strip() for part in dotted.split("."))
        mark = Mark.of_set(dotted.strip())
        if not equals or not all(path):
            return self.give_up(Problem(Mark.of_set(text), "expected key=value, such as train.steps=200"))
        parsed = parse(value, lambda line, column: mark)
        if parsed.tree is None:
            return self.give_up(*parsed.problems)
        self.problems.extend(parsed.problems)
        node = Text("", True, mark) if not value.strip() else parsed.tree
        for key in reversed(path):
            node = Keys({key: Entry(mark, node)}, mark)
        tree = _spelt_out(node, ())
        assert isinstance(tree, Keys)
        return tree


def _spelt_out(node: Node, path: Keypath) -> Node:
    """The tree with every component's short form `router: pdsr` written out as `router: {use: pdsr}`."""
    if component_kind(path) is not None:
        if isinstance(node, Text) and not node.is_null:
            return Keys({"use": Entry(node.mark, node)}, node.mark)
        return node
    if isinstance(node, Keys):
        entries = {k: Entry(e.key, _spelt_out(e.value, (*path, k))) for k, e in node.entries.items()}
        return Keys(entries, node.mark)
    return node


def merge(lower: Keys, upper: Keys, path: Keypath = ()) -> Keys:
    """`upper` laid on `lower`."""
    if component_kind(path) is not None and _use(upper) not in (None, _use(lower)):
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

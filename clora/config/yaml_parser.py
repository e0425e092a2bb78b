"""YAML text -> a tree with a mark on every value, without any of YAML's guesses about types.

The parser's events are read rather than composed nodes: only they tell a written tag from a guessed one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from attrs import evolve, frozen

from clora.config.names import MAX_KEY, MAX_TEXT, path_problem, text_problem
from clora.config.problems import Problem
from clora.config.tree import Entry, Items, Keys, Mark, Node, Text
from clora.errors import nearest, quoted, reason

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MOST_OF_PYYAML = 85  # characters of PyYAML's own sentence, which may repeat some of the text
MAX_NEIGHBOURS = 1_000  # files of a folder that a misspelt name is compared with
MAX_VALUES = 20_000  # aliases counted as often as they are used, so that a few lines cannot become a million values

Place = Callable[[int, int], Mark]


@frozen
class Parsed:
    """A text's tree and its mistakes; without a tree the text could not be read to its end."""

    tree: Node | None
    problems: tuple[Problem, ...]
    size: int = 0  # bytes of the file


class _Unreadable(Exception):  # noqa: N818 - it signals that the error is recorded already
    """Reading must stop here; the problem is recorded already."""


def parse_file(file: Path, named_by: Mark | None = None) -> Parsed:
    """The tree of a YAML file; `named_by` is the place that names it, where that is not the command line's RECIPE."""
    blame = named_by if named_by is not None and named_by.line else None  # a line of a file, not a `--with`
    absolute = os.path.abspath(os.fspath(file).replace("\0", ""))
    whole = Mark.of_file(Path(absolute), named_by=named_by)
    problem = path_problem(file) or path_problem(absolute)
    if problem is not None:
        sentence = f"cannot read {whole.source}: its path {problem}" if blame else f"cannot be read: its path {problem}"
        return Parsed(None, (Problem(blame or whole, sentence),))
    try:
        content = _content(file, pipes=blame is None)
    except OSError as error:
        why = f"{reason(error.strerror or error)}{neighbour(file)}"
        sentence = f"cannot read {whole.source}: {why}" if blame else f"cannot be read: {why}"
        return Parsed(None, (Problem(blame or whole, sentence),))
    if len(content) > MAX_BYTES:
        return Parsed(None, (Problem(whole, f"is larger than {MAX_BYTES} bytes, which no recipe is"),))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Parsed(None, (Problem(whole.at(line, 1), "is not UTF-8 text"),))
    return evolve(parse(text, whole.at), size=len(content))


def _content(file: Path, pipes: bool) -> bytes:
    """At most a byte more than a recipe has. A recipe may be a pipe where a person's shell names it, not a file."""
    if not pipes and file.exists() and not file.is_file() and not file.is_dir():
        raise OSError("it is no file but a device or a pipe")
    with file.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def neighbour(file: Path) -> str:
    """The end of a message about a file that is not there: the one beside it whose name is nearly the same."""
    if not os.path.isdir(file.parent):
        return ""
    close = nearest(file.name, [other.name for other in islice(file.parent.glob("*.yaml"), MAX_NEIGHBOURS)])
    return f"; did you mean {quoted(close)}?" if close and close != file.name else ""


def parse(text: str, place: Place) -> Parsed:
    """The tree of a YAML text whose marks `place` makes from line and column (from 1).

    PyYAML's scanner and parser climb no stack and do work that grows with the text alone; a test counts it.
    """
    problems: list[Problem] = []
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        return Parsed(_Builder(loader, place, problems).document(), tuple(problems))
    except _Unreadable:
        pass  # the problem is recorded already
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = place(at.line + 1, at.column + 1) if at else place(1, 1)
        problems.append(Problem(mark, f"not YAML: {reason(error.problem or error.context or error, MOST_OF_PYYAML)}"))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.append(Problem(place(line, 1), f"not YAML: {error.reason} (character {error.character})"))
    except (ValueError, OverflowError):  # a character beyond Unicode, or a version of 5,000 digits
        assert loader is not None
        mark = place(loader.line + 1, loader.column + 1)
        problems.append(Problem(mark, "not YAML: a number here is larger than YAML knows"))
    return Parsed(None, tuple(problems))


class _Builder:
    def __init__(self, loader: yaml.SafeLoader, place: Place, problems: list[Problem]) -> None:
        self.problems = problems
        self.place = place
        self.events: Iterator[Any] = iter(loader.get_event, None)
        self.anchors: dict[str, tuple[Node, int] | None] = {}
        self.values = 0

    def stop(self, mark: Mark, message: str) -> _Unreadable:
        self.problems.append(Problem(mark, message))
        return _Unreadable()

    def mark(self, event: Any) -> Mark:
        return self.place(event.start_mark.line + 1, event.start_mark.column + 1)

    def count(self, mark: Mark, values: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise self.stop(mark, f"more than {MAX_VALUES} values, counting aliases as often as they are used")

    def check_text(self, mark: Mark, what: str, text: str, most: int) -> None:
        """Record what no file, path or other program would take."""
        problem = text_problem(text, most)
        if problem is not None:
            self.problems.append(Problem(mark, f"{what} {quoted(text)} {problem}"))

    def document(self) -> Node:
        next(self.events)  # the stream's start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return Keys({}, self.place(1, 1))
        tree = self.node(next(self.events), 0)
        next(self.events)  # the document's end
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.stop(self.mark(after), "a second document; a recipe is one")
        return tree

    def node(self, event: Any, depth: int, key: Mark | None = None) -> Node:
        mark = self.mark(event)
        if depth > MAX_DEPTH:
            raise self.stop(mark, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, mark)
        self.count(mark, 1)
        if event.tag is not None:
            tag = quoted(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self.problems.append(Problem(mark, f"tag {tag} is not allowed; the recipe's types say what a value is"))
        before = self.values - 1
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # known but not finished
        if isinstance(event, yaml.ScalarEvent):
            self.check_text(mark, "the text", event.value, MAX_TEXT)
            node: Node = Text(event.value, event.style is None, mark)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.items(mark, depth)
        else:
            node = self.keys(key or mark, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.values - before)
        return node

    def alias(self, event: Any, mark: Mark) -> Node:
        if event.anchor not in self.anchors:
            raise self.stop(mark, f"alias {quoted(event.anchor)} names no anchor above it")
        target = self.anchors[event.anchor]
        if target is None:
            raise self.stop(mark, f"alias {quoted(event.anchor)} stands inside its own anchor")
        node, size = target
        self.count(mark, size)
        return node

    def items(self, mark: Mark, depth: int) -> Items:
        values: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            values.append(self.node(event, depth + 1))
        return Items(tuple(values), mark)

    def keys(self, mark: Mark, depth: int) -> Keys:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key_mark = self.mark(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise self.stop(key_mark, "a key must be one word")
            name = event.value
            self.check_text(key_mark, "the key", name, MAX_KEY)
            value = self.node(next(self.events), depth + 1, key_mark)
            if event.tag is not None:
                self.problems.append(Problem(key_mark, f"a tag on key {quoted(name)} is not allowed"))
            elif name == "<<" and event.style is None:
                self.problems.append(Problem(key_mark, "merge keys (<<) are not supported; use `extends`"))
            elif name in entries:
                first = entries[name].key
                again = f"line {first.line}" if first.line else "before"
                self.problems.append(Problem(key_mark, f"key {quoted(name)} is already given at {again}"))
            else:
                entries[name] = Entry(key_mark, value)
        return Keys(entries, mark)

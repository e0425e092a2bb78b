"""A tree -> typed values, following the annotations of attrs classes; every mistake is collected at its mark."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import attrs
from attrs import frozen

from clora.config.fields import Key, draft, keys_of
from clora.config.messages import advice, bound, described, dotted
from clora.config.names import path_problem
from clora.config.package_files import placed_file
from clora.config.problems import Problem, UnknownWord
from clora.config.scalars import as_bool, as_float, as_int, as_text, found, is_beyond, natural
from clora.config.tree import Items, Keypath, Keys, Mark, Node, Text, is_null
from clora.errors import QUOTED, CloraError, escaped, nearest, quoted, reason
from clora.toolkit.diffusers_folder import ModelPlace, placed

_SCALARS = {int: as_int, float: as_float, bool: as_bool, str: as_text}


class Failed(Exception):  # noqa: N818 - it signals that the error is recorded already
    """A value could not be made; its problems are recorded."""


@frozen
class Section:
    """A mapping that is made into an attrs class."""

    node: Keys
    path: Keypath
    keys: Mapping[str, Key]
    words: tuple[str, ...]  # the keys' names

    @classmethod
    def of(cls, made: type, node: Keys, path: Keypath) -> Section:
        """The section of a class. Raises NameError or TypeError as `keys_of` does."""
        keys = {key.name: key for key in keys_of(made)}
        return cls(node, path, keys, tuple(keys))


class Structurer:
    """Makes typed values from nodes and collects what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def fail(self, mark: Mark, message: str | UnknownWord | CloraError) -> NoReturn:
        """Record a problem and give this value up."""
        self.problems.append(Problem(mark, message))
        raise Failed

    def value(self, expected: Any, node: Node, path: Keypath) -> Any:
        """The node as a value of the expected type; raises Failed once its problems are recorded."""
        origin = get_origin(expected)
        if expected is Any:
            return self.anything(node, path)
        if origin in (Union, types.UnionType):
            return self.union(expected, node, path)
        if origin is Literal:
            return self.choice(expected, node, path)
        if origin in (tuple, list, Sequence):
            return self.items(expected, node, path)
        if origin in (dict, Mapping):
            return self.mapping(get_args(expected)[1], node, path)
        if isinstance(expected, type) and attrs.has(expected):
            return self.made(expected, self.keys(node, path), path)
        return self.scalar(expected, node, path)

    def keys(self, node: Node, path: Keypath, expected: str = "a mapping") -> Keys:
        """The node as a mapping."""
        if isinstance(node, Keys):
            return node
        self.fail(node.mark, f"{dotted(path)}: expected {expected}, {found(node)}")

    def scalar(self, expected: Any, node: Node, path: Keypath) -> Any:
        """An int, float, bool, str or Path; a path is relative to the file that it stands in."""
        text = as_text(node)
        if expected in (Path, ModelPlace) and text:
            return self.path(expected, text, node.mark, path)
        value = _SCALARS[expected](node) if expected in _SCALARS else None
        if value is not None:
            return value
        if expected not in (Path, ModelPlace) and expected not in _SCALARS:
            self.fail(node.mark, f"{dotted(path)}: a recipe cannot give a value of type {described(expected)}")
        self.fail(node.mark, f"{dotted(path)}: expected {described(expected)}, {found(node)}{advice(expected, node)}")

    def path(self, expected: Any, text: str, mark: Mark, path: Keypath) -> Any:
        """A path, or a model's folder or Hub id."""
        problem = path_problem(text)
        if problem is None:
            try:
                value = placed(text, mark.folder) if expected is ModelPlace else placed_file(text, mark.folder)
            except CloraError as error:
                self.fail(mark, f"{dotted(path)}: {error}")
            except (RuntimeError, OSError) as error:  # no such home folder; a folder that may not be looked into
                self.fail(mark, f"{dotted(path)}: {quoted(text)} cannot be looked up: {_why(error)}")
            problem = path_problem(value)
            if problem is None:
                return value
        self.fail(mark, f"{dotted(path)}: the path {quoted(text)} {problem}")

    def anything(self, node: Node, path: Keypath) -> Any:
        """A value where no type is expected: lists as tuples, mappings as dicts."""
        if isinstance(node, Items):
            return tuple(self.anything(item, (*path, str(i))) for i, item in enumerate(node.values))
        if isinstance(node, Keys):
            return {key: self.anything(entry.value, (*path, key)) for key, entry in node.entries.items()}
        if is_beyond(node):
            self.fail(node.mark, f"{dotted(path)}: expected a value, {found(node)}, which no number here can be")
        return natural(node)

    def union(self, expected: Any, node: Node, path: Keypath) -> Any:
        """The first member that the node fits; null is None where None is a member."""
        members = [member for member in get_args(expected) if member is not type(None)]
        if is_null(node) and len(members) < len(get_args(expected)):
            return None
        if len(members) == 1:
            return self.value(members[0], node, path)
        mappings = [member for member in members if _is_mapping(member)]
        if isinstance(node, Keys) and len(mappings) == 1:
            return self.value(mappings[0], node, path)  # nothing else can be meant, so its own mistakes are told
        before = len(self.problems)
        for member in members:
            try:
                return self.value(member, node, path)
            except Failed:
                del self.problems[before:]
        self.fail(node.mark, f"{dotted(path)}: expected {described(expected)}, {found(node)}")

    def choice(self, expected: Any, node: Node, path: Keypath) -> Any:
        """One of a Literal's words."""
        options = get_args(expected)
        value = natural(node) if isinstance(node, Text) and node.plain else as_text(node)
        for option in options:
            if type(option) is type(value) and option == value:
                return option
        close = nearest(value, [o for o in options if isinstance(o, str)]) if isinstance(value, str) else None
        meant = f"; did you mean {quoted(close)}?" if close else ""
        self.fail(node.mark, f"{dotted(path)}: expected {described(expected)}, {found(node)}{meant}")

    def items(self, expected: Any, node: Node, path: Keypath) -> Any:
        """A tuple or a list; a fixed length is checked."""
        if not isinstance(node, Items):
            short = isinstance(node, Text) and not node.is_null and len(node.text) <= QUOTED
            instead = f"; write [{escaped(node.text)}]" if isinstance(node, Text) and short else ""
            self.fail(node.mark, f"{dotted(path)}: expected {described(expected)}, {found(node)}{instead}")
        members = get_args(expected)
        if get_origin(expected) is not tuple or members[1:] == (...,):
            members = (members[0],) * len(node.values)
        if len(members) != len(node.values):
            self.fail(node.mark, f"{dotted(path)}: expected {described(expected)}, found a list of {len(node.values)}")
        pairs = zip(members, node.values, strict=True)
        values = self.each(((str(i), member, item) for i, (member, item) in enumerate(pairs)), path)
        return list(values.values()) if get_origin(expected) is list else tuple(values.values())

    def mapping(self, member: Any, node: Node, path: Keypath) -> dict[str, Any]:
        """A mapping whose keys are free; null takes a key out."""
        entries = self.keys(node, path).entries.items()
        return self.each(((k, member, e.value) for k, e in entries if not is_null(e.value)), path)

    def each(self, wanted: Iterable[tuple[str, Any, Node]], path: Keypath) -> dict[str, Any]:
        """Several values by name; all of them are tried before Failed is raised."""
        values: dict[str, Any] = {}
        failed = False
        for name, expected, node in wanted:
            try:
                values[name] = self.value(expected, node, (*path, name))
            except Failed:
                failed = True
        if failed:
            raise Failed
        return values

    def made(self, cls: type, node: Keys, path: Keypath) -> Any:
        """An instance of an attrs class from its keys."""
        try:
            section = Section.of(cls, node, path)
        except (NameError, TypeError) as error:
            why = f"the types of class {cls.__name__} cannot be read: {reason(error)}"
            self.fail(node.mark, f"{dotted(path)}: {why}")
        before = len(self.problems)
        for name, entry in node.entries.items():
            if name not in section.keys:
                sentence = f"unknown key {quoted(name)}{_under(path)}"
                self.problems.append(Problem(entry.key, UnknownWord(sentence, name, self.words(section))))
        values: dict[str, Any] = {}
        for name, key in section.keys.items():
            given = node.get(name)
            if given is None or (is_null(given) and not self.takes_null(key)):
                if key.required:
                    self.problems.append(Problem((given or node).mark, self.missing(key, path)))
                continue
            with suppress(Failed):
                values[name] = self.value(key.type, given, (*path, name))
        self.check_bounds(draft(cls, values), section, values, complete=len(self.problems) == before)
        if len(self.problems) > before:
            raise Failed
        return self.build(cls, values, section)

    def words(self, section: Section) -> tuple[str, ...]:
        """The words that a section knows, one of which was probably meant by an unknown one."""
        return section.words

    def takes_null(self, key: Key) -> bool:
        """True where null is a value of the key and not a way back to its default."""
        return key.type is Any or type(None) in get_args(key.type)

    def missing(self, key: Key, path: Keypath) -> str:
        """The message about a required key that is not there."""
        return f"{key.name!r} is missing{_under(path)}"

    def check_bounds(self, instance: Any, section: Section, values: Mapping[str, Any], complete: bool) -> None:
        """Run every field's validator on its own, so that one bad value does not hide another."""
        for name, value in values.items():
            attribute, given = section.keys[name].attribute, section.node.entries[name].value
            if attribute.validator is None or attribute.converter is not None:
                continue
            try:
                attribute.validator(instance, attribute, value)
            except (ValueError, TypeError) as error:
                self.problems.append(Problem(given.mark, bound(error, attribute.name, dotted((*section.path, name)))))
            except Exception as error:  # a component's own code, which may raise anything
                if complete or not isinstance(error, AttributeError):  # else it looks at a field that was not made
                    why = f"its validator raised {_why(error)}"
                    self.problems.append(Problem(given.mark, f"{dotted((*section.path, name))}: {why}"))

    def build(self, cls: type, arguments: Mapping[str, Any], section: Section) -> Any:
        """The instance itself; what its constructor refuses is a problem at its section."""
        try:
            return cls(**arguments)
        except Exception as error:  # a component's own code, which may raise anything
            self.fail(section.node.mark, bound(error, "", dotted(section.path)))


def _is_mapping(expected: Any) -> bool:
    return get_origin(expected) in (dict, Mapping) or (isinstance(expected, type) and attrs.has(expected))


def _under(path: Keypath) -> str:
    return f" in {dotted(path)}" if path else ""


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {reason(getattr(error, 'strerror', None) or error)}"

"""What each field of a foreign configuration may be: its type and its range, in a table a model family has.

Sizes have an upper bound because they are built before they are compared with the weights: a configuration that says
10^9 layers would fill the memory first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from attrs import frozen

from clora.errors import CloraError, quoted
from clora.files.untrusted_json import kind_of

#: mistakes told of one file
MOST_TOLD = 6
#: characters of a name of a class, type or function
LONGEST_NAME = 100


class Kind(Protocol):
    """What may stand in a field."""

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """Why a value may not stand there, as sentences that begin with the field's dotted name."""
        ...


Fields = Mapping[str, Kind]


def _wrong(name: str, value: object, expected: str, null: bool = False) -> str:
    found = quoted(value) if isinstance(value, str | int | float) or value is None else kind_of(value)
    return f"{name} is {found}; it must be {expected}{' or null' if null else ''}"


@frozen
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int
    null: bool = False

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """One sentence where it is not."""
        if value is None and self.null:
            return
        if type(value) is not int or not self.low <= value <= self.high:
            span = f"{self.low}" if self.low == self.high else f"a whole number from {self.low} to {self.high}"
            yield _wrong(name, value, span, self.null)


@frozen
class Number:
    """A finite number from `low` to `high`."""

    low: float
    high: float
    null: bool = False

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """One sentence where it is not."""
        if value is None and self.null:
            return
        # NaN is within no bounds
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            yield _wrong(name, value, f"a number from {self.low:g} to {self.high:g}", self.null)


@frozen
class Flag:
    """true or false."""

    null: bool = False

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """One sentence where it is not."""
        if not isinstance(value, bool) and not (value is None and self.null):
            yield _wrong(name, value, "true or false", self.null)


@frozen
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]
    null: bool = False

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """One sentence where it is not."""
        if value is None and self.null:
            return
        if not isinstance(value, str) or value not in self.words:
            yield _wrong(name, value, " or ".join(self.words), self.null)


@frozen
class Name:
    """The name of a class, a type or a function: letters, digits and `_ . - /`, at most 100 of them."""

    null: bool = False

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """One sentence where it is not."""
        if value is None and self.null:
            return
        if not isinstance(value, str) or len(value) > LONGEST_NAME or not re.fullmatch(r"[\w./-]+", value):
            yield _wrong(name, value, "a name", self.null)


@frozen
class Token:
    """A token of a vocabulary: a short text, or a map that tells more of it."""

    null: bool = True

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """One sentence where it is not."""
        content = value.get("content") if isinstance(value, dict) else value
        if content is None and value is None and self.null:
            return
        if not isinstance(content, str) or not 1 <= len(content) <= LONGEST_NAME:
            yield _wrong(name, value, f"a token of 1 to {LONGEST_NAME} characters", self.null)


@frozen
class Several:
    """A list of `least` to `most` values of one kind."""

    of: Kind
    least: int
    most: int
    null: bool = False

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """A sentence for the list, or for each wrong value in it."""
        if value is None and self.null:
            return
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            count = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
            found = f" of {len(value):,}" if isinstance(value, list) else ""
            text = _wrong(name, value, f"a list of {count}", self.null)
            yield text.replace(f"{name} is a list;", f"{name} is a list{found};", 1)
            return
        for number, item in enumerate(value):
            yield from self.of.problems(f"{name}[{number}]", item)


@frozen
class Either:
    """What one of two kinds may be; the first tells what is wrong."""

    first: Kind
    second: Kind

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """The first kind's sentences where neither fits."""
        told = list(self.first.problems(name, value))
        if told and any(True for _ in self.second.problems(name, value)):
            yield from told


@frozen
class Section:
    """A map with fields of its own; those that the table does not know are left alone."""

    fields: Fields
    null: bool = False

    def problems(self, name: str, value: Any) -> Iterable[str]:
        """A sentence for each wrong field."""
        if value is None and self.null:
            return
        if not isinstance(value, dict):
            yield _wrong(name, value, "a map", self.null)
            return
        yield from _each(value, self.fields, f"{name}.")


def field_problems(tree: Mapping[str, Any], fields: Fields, where: str) -> list[str]:
    """What is wrong with the fields that a map has, each as one sentence that begins with `where`; a few and a count.

    A field that is missing has the default of the class that reads it.
    """
    return told(f"{where}: {problem}" for problem in _each(tree, fields, ""))


def check_fields(tree: Mapping[str, Any], fields: Fields, where: str) -> None:
    """Raise CloraError with the first thing that `field_problems` tells."""
    for problem in _each(tree, fields, ""):
        raise CloraError(f"{where}: {problem}")


def told(problems: Iterable[str], most: int = MOST_TOLD) -> list[str]:
    """The first few problems, and how many more there are in the last of them."""
    found = list(problems)
    more = len(found) - most
    return found if more <= 0 else [*found[: most - 1], f"{found[most - 1]} (and {more:,} more)"]


def _each(tree: Mapping[str, Any], fields: Fields, prefix: str) -> Iterator[str]:
    for name, kind in fields.items():
        if name in tree:
            yield from kind.problems(f"{prefix}{name}", tree[name])

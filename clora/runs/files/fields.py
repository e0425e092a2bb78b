"""Typed fields of a JSON map that a run wrote: whatever is not of its type is damage, told with file and key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan
from typing import Any, TypeVar

from attrs import frozen

from clora.errors import quoted
from clora.files.untrusted_json import kind_of
from clora.runs.files.checksums import DamagedError

T = TypeVar("T")


@frozen
class Fields:
    """A map and the words that name it in a message, such as a file's path."""

    tree: Mapping[str, Any]
    where: str

    def text(self, key: str) -> str:
        """A text."""
        value = self._value(key)
        return value if isinstance(value, str) else self._wrong(key, "a text", value)

    def whole(self, key: str) -> int:
        """A whole number, zero or more."""
        value = self._value(key)
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return value if fits else self._wrong(key, "a whole number", value)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._value(key)
        return float(value) if is_number(value) else self._wrong(key, "a number", value)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._value(key)
        return value if isinstance(value, bool) else self._wrong(key, "true or false", value)

    def choice(self, key: str, among: Sequence[T]) -> T:
        """One of several values."""
        value = self._value(key)
        found = [one for one in among if type(one) is type(value) and one == value]
        return found[0] if found else self._wrong(key, f"one of {', '.join(map(quoted, among))}", value)

    def optional(self, key: str, read: Callable[[Fields, str], T]) -> T | None:
        """As `read` finds it; None for null."""
        return None if self._value(key) is None else read(self, key)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._value(key)
        fits = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return tuple(value) if fits else self._wrong(key, "a list of texts", value)

    def list(self, key: str) -> Sequence[Any]:
        """A list of anything."""
        value = self._value(key)
        return value if isinstance(value, list) else self._wrong(key, "a list", value)

    def row(self, key: str) -> tuple[float, ...]:
        """A list of numbers, null as NaN."""
        value = self._value(key)
        fits = isinstance(value, list) and all(one is None or is_number(one) for one in value)
        return tuple(map(_or_nan, value)) if fits else self._wrong(key, "a list of numbers", value)

    def numbers(self, key: str) -> dict[str, float]:
        """A map of numbers, null as NaN."""
        inner = self.map(key)
        return {name: _or_nan(None if value is None else inner.number(name)) for name, value in inner.tree.items()}

    def map(self, key: str) -> Fields:
        """A map below this one."""
        value = self._value(key)
        return Fields(value if isinstance(value, dict) else self._wrong(key, "a map", value), f"{self.where}: {key}")

    def map_of(self, read: Callable[[Fields, str], T]) -> dict[str, T]:
        """Every entry as `read` finds it, such as `fields.map("values").map_of(Fields.number)`."""
        return {key: read(self, key) for key in self.tree}

    def _value(self, key: str) -> Any:
        if key not in self.tree:
            raise DamagedError(f"{self.where} is damaged: it lacks {quoted(key)}")
        return self.tree[key]

    def _wrong(self, key: str, wanted: str, value: object) -> Any:
        raise DamagedError(f"{self.where} is damaged: {quoted(key)} must be {wanted}, found {kind_of(value)}")


def is_number(value: object) -> bool:
    """True for a finite number that is no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def finite(value: Any) -> Any:
    """A tree with null for every float that is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _or_nan(value: float | None) -> float:
    return nan if value is None else float(value)

"""The bounds of a numeric key, as a validator of attrs: `steps: int = field(default=8, validator=between(1, 1000))`.

Its failure reads `student.steps must be between 1 and 1000, found 999999999`. Numbers nobody means are refused whatever
the bounds: NaN, and what float32, in which runs compute, takes for 0.
"""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from clora.errors import quoted

#: what nears 0 more than this is 0, or loses its digits, in float32
LEAST = 2.0**-126
#: seeds are whole numbers that torch and NumPy take
MOST_SEED = 2**32 - 1


@frozen
class Between:
    """Both bounds of a number; the number may be either of them, but the upper one where `below` is true."""

    low: float
    high: float
    below: bool = False
    #: 0 is allowed too, where the bounds leave it out
    zero: bool = field(default=False)

    def __call__(self, instance: object, attribute: Attribute[Any], value: float) -> None:
        """Raises ValueError, in a sentence that begins with the attribute's name in quotes, for a value outside."""
        inside = self.low <= value < self.high if self.below else self.low <= value <= self.high
        if value == 0 and (inside or self.zero):
            return
        if not inside:  # NaN is neither above nor below
            raise ValueError(f"'{attribute.name}' must be {self}, found {quoted(value)}")
        if abs(value) < LEAST:
            raise ValueError(f"'{attribute.name}' must be {self}, found {quoted(value)}, which is 0 in float32")

    def __str__(self) -> str:
        zero = "0 or " if self.zero else ""
        if self.below:
            return f"{zero}at least {_written(self.low)} and less than {_written(self.high)}"
        return f"{zero}between {_written(self.low)} and {_written(self.high)}"


def between(low: float, high: float, *, below: bool = False, zero: bool = False) -> Between:
    """A validator: the number lies from `low` to `high`, under it where `below`; 0 is allowed besides where `zero`."""
    return Between(low, high, below, zero)


def _written(bound: float) -> str:
    if bound != int(bound):
        return f"{bound:g}".replace("e-0", "e-")
    return str(int(bound)) if abs(bound) < 10_000 else f"{int(bound):,}"

"""Axes: where a value lies on a drawing and which values get a tick."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import frozen


@frozen
class Scale:
    """Values low..high, linear or logarithmic, on a stretch of the drawing from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, log: bool = False) -> Scale:
        """A scale that holds all values, with room where they are all the same; values must not be empty."""
        low, high = min(values), max(values)
        if log:
            # Less than a third of a decade would have no two ticks.
            if high / low < 2:
                low, high = low / 1.5, high * 1.5
        elif high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        return cls(low, high, start, end, log)

    def at(self, value: float) -> float:
        """The place of a value on the drawing."""
        low, high, v = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (v - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within the scale, about as many as asked."""
        return self._decades() if self.log else self._steps(about)

    def _steps(self, about: int) -> list[float]:
        rough = (self.high - self.low) / about
        power = 10 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]

    def _decades(self) -> list[float]:
        span = math.log10(self.high / self.low)
        multiples = (1,) if span > 3 else (1, 3) if span > 1.5 else (1, 2, 5)
        every = max(1, round(span / 6))
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [m * 10.0**p for p in powers if p % every == 0 for m in multiples]
        return [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]


def tick_text(value: float) -> str:
    """A tick's value in few letters: 1500 is 1.5k, 1e-05 stays."""
    if abs(value) >= 10000 or (abs(value) >= 1000 and value % 100 == 0):
        return f"{value / 1000:g}k"
    return f"{value:.6g}"

"""Which effects got worse from one run to another, picture by picture on the same test pictures and noise."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING

from attrs import frozen

from clora.errors import CloraError

if TYPE_CHECKING:
    from clora.runs.files.results import Results

#: a change counts when it is more than this many standard errors of its mean ...
ERRORS = 2.0
#: ... and more than this share of what the number was
SHARE = 0.05


@frozen
class Change:
    """One effect's number before and after; `worsening` is positive where it got worse."""

    effect: str
    metric: str
    before: float
    after: float
    worsening: float
    standard_error: float | None  # None for a single picture, which says nothing of chance

    @property
    def worse(self) -> bool:
        """True where the worsening is beyond chance and large enough to matter."""
        return self.worsening > ERRORS * (self.standard_error or 0.0) and self.worsening > SHARE * abs(self.before)


def changes(before: Results, after: Results) -> list[Change]:
    """Every metric of every effect that both evaluations have and that is better in one direction.

    Raises CloraError where an evaluation has no numbers for each picture, or was made with other pictures.
    """
    found = []
    for effect, old in before.per_picture.items():
        new = after.per_picture.get(effect)
        if new is None:
            continue
        if before.pictures.get(effect) != after.pictures.get(effect):
            raise CloraError(f"the effect {effect} was evaluated on other test pictures before; nothing to compare")
        for metric, better in before.better.items():
            if metric in old and metric in new:
                found.append(_change(effect, metric, old[metric], new[metric], better == "lower"))
    if not found:
        raise CloraError(
            "no metric has given a number for each picture in both runs; `clora evaluate RUN` makes them for the "
            "metric truth and others that can"
        )
    return found


def _change(effect: str, metric: str, old: Sequence[float], new: Sequence[float], lower: bool) -> Change:
    """The paired difference of means and its standard error."""
    count = len(old)
    worse = [(b - a) if lower else (a - b) for a, b in zip(old, new, strict=True)]
    mean = sum(worse) / count
    error = sqrt(sum((w - mean) ** 2 for w in worse) / (count - 1) / count) if count > 1 else None
    return Change(effect, metric, sum(old) / count, sum(new) / count, mean, error)


def as_text(found: Sequence[Change]) -> str:
    """A line for every effect and metric, the worse ones marked, and a verdict."""
    widths = [max(len(getattr(change, key)) for change in found) for key in ("effect", "metric")]
    lines = [
        f"{c.effect:<{widths[0]}}  {c.metric:<{widths[1]}}  {c.before:9.4f} -> {c.after:9.4f}"
        f"  ± {_error(c)}{'  WORSE' if c.worse else ''}"
        for c in found
    ]
    worse = list(dict.fromkeys(change.effect for change in found if change.worse))
    verdict = f"got worse: {', '.join(worse)}" if worse else "no effect got worse"
    lines.append(f"{verdict} (beyond {ERRORS:g} standard errors and {SHARE:.0%})")
    if any(change.standard_error is None for change in found):
        lines.append(
            "?: one test picture alone cannot tell chance from change; `evaluate.images` is how many there are"
        )
    return "\n".join(lines)


def _error(change: Change) -> str:
    return "?     " if change.standard_error is None else f"{change.standard_error:.4f}"

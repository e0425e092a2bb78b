"""A backbone's linears, also by the names of its original code: there several may be one, laid side by side.

y = W x with W = [Wq; Wk; Wv] is three linears of one input: of its LoRA B A each has the whole A and its own rows of B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import torch

Sizes = tuple[int, int]


@frozen
class LinearRows:
    """A linear as rows of an original one's output: the ranges (start, stop), one after the other."""

    linear: str  # the name of the linear
    ranges: tuple[tuple[int, int], ...]  # rows of its output, as (begin, end)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(stop - start for start, stop in self.ranges)

    def of(self, b: torch.Tensor) -> torch.Tensor:
        """These rows of B [out, r]."""
        import torch

        parts = [b[start:stop] for start, stop in self.ranges]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class Linears(dict[str, Sizes]):
    """{linear: (in, out)}; `originals` {name in the original code: its linears}, which files may be written with."""

    def __init__(self, shapes: Mapping[str, Sizes], originals: Mapping[str, Sequence[LinearRows]]) -> None:
        super().__init__(shapes)
        self.originals = {name: tuple(parts) for name, parts in originals.items()}

    @staticmethod
    def joined(shapes: Mapping[str, Sizes], linears: Sequence[str]) -> tuple[LinearRows, ...]:
        """The parts of an original linear whose outputs are those of `linears`, one below the other."""
        parts, end = [], 0
        for name in linears:
            parts.append(LinearRows(name, ((end, end + shapes[name][1]),)))
            end += shapes[name][1]
        return tuple(parts)


def originals_of(shapes: Mapping[str, Sizes] | None) -> Mapping[str, tuple[LinearRows, ...]]:
    """The original names that a backbone's linears come with; none for a plain mapping."""
    return shapes.originals if isinstance(shapes, Linears) else {}


def sizes_of(shapes: Mapping[str, Sizes], name: str) -> Sizes:
    """(in, out) of a linear or of an original one."""
    if name in shapes:
        return shapes[name]
    parts = originals_of(shapes)[name]
    return shapes[parts[0].linear][0], sum(part.count for part in parts)

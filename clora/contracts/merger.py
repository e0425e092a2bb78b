"""What `serve: {adapter: merge}` asks for: one LoRA made of the teachers' without training, as a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch

#: {linear: (A [r, in], B [out, r], scale)}: the change of its weight is scale B A
LoraFactors: TypeAlias = "Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]"


class Merger(Protocol):
    """Makes one LoRA of several."""

    def shape_problems(self, shapes: Mapping[str, tuple[int, int]]) -> Iterable[str]:
        """Every problem with a backbone of these linears {name: (inputs, outputs)}, asked before it is loaded."""
        ...

    def merge(self, teachers: Sequence[LoraFactors], shapes: Mapping[str, tuple[int, int]], seed: int) -> LoraFactors:
        """One LoRA from the teachers' factors, which stay as they are; the same for the same seed.

        A teacher may leave linears out; so may the result. Raises CloraError where these teachers cannot be merged.
        """
        ...

"""What `optimizer:` asks for: the rule by which an adapter's gradients change its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch

#: weights: one flat tensor of all numbers, for elementwise rules; matrices: every A [r, in] and B [out, r] by itself
WorksOn: TypeAlias = Literal["weights", "matrices"]


class Optimizer(Protocol):
    """Makes the torch optimizer of an adapter.

    The core averages gradients over the ranks and clips them, sets the rate of every parameter group before each
    update, calls `step()` without a closure, and keeps the optimizer's state in the checkpoints.
    """

    @property
    def works_on(self) -> WorksOn:
        """What `make` is given: `weights` for elementwise rules, `matrices` for rules that need their shapes."""
        ...

    def make(self, parameters: Sequence[torch.Tensor], lr: float) -> torch.optim.Optimizer:
        """An optimizer over exactly these float32 leaf tensors, whose gradients are there and stay in their place.

        Its state may hold tensors and numbers, by parameter; numbers in its groups may change too.
        """
        ...

    def state_per_weight(self) -> float:
        """How many float32 numbers of state it keeps for a weight, such as 2 for AdamW: memory is told from it."""
        ...

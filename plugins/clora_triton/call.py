"""One call of a LoRA linear as every implementation sees it: tensors, and which rows use which adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch


class Dropout(NamedTuple):
    """Which numbers of x an adapter does not see: a matter of the seed, the row and the column of x alone."""

    p: Sequence[float]  # of every adapter: the share that is dropped; what is kept is scaled by 1 / (1 - p)
    seed: torch.Tensor  # int64 [], on x's device


class Call(NamedTuple):
    """Row segment i has rows[i] rows of x's first axis and uses adapter which[i], or none where that is -1."""

    x: torch.Tensor  # [B, ..., in], of any strides
    weight: torch.Tensor  # [out, in]
    bias: torch.Tensor | None  # [out]
    a: Sequence[torch.Tensor]  # [r, in] of every adapter
    b: Sequence[torch.Tensor]  # [out, r] of every adapter
    scales: Sequence[float]  # of every adapter
    rows: Sequence[int]
    which: Sequence[int]
    dropout: Dropout | None = None  # None where nothing is dropped

    @property
    def vectors(self) -> int:
        """Feature vectors in all: the rows of x seen as a matrix."""
        return self.x.numel() // max(self.x.shape[-1], 1)

    @property
    def rank(self) -> int:
        """The largest rank: how many columns the packed shrunk activations have."""
        return max((a.shape[0] for a in self.a), default=0)

    def dropped(self, adapter: int) -> float:
        """The share of its input that an adapter does not see."""
        return 0.0 if self.dropout is None else self.dropout.p[adapter]

    def inner(self) -> list[int]:
        """The segments' lengths in feature vectors."""
        each = self.vectors // max(self.x.shape[0], 1)
        return [count * each for count in self.rows]


def matrix(x: torch.Tensor) -> torch.Tensor | None:
    """x [..., n] as [vectors, n] where it lies; None where its strides do not allow that."""
    if x.dim() == 2:
        return x
    if x.is_contiguous():
        return x.view(-1, x.shape[-1])
    if x.numel() == 0:
        return x.reshape(-1, x.shape[-1])
    size, step = x.shape[-2], x.stride(-2)
    for axis in range(x.dim() - 3, -1, -1):
        if x.shape[axis] != 1 and x.stride(axis) != step * size:
            return None
        size *= x.shape[axis]
    return x.as_strided((size, x.shape[-1]), (step, x.stride(-1)))


def rows_as_matrix(x: torch.Tensor) -> torch.Tensor:
    """x [..., n] as [vectors, n]; copied once where its strides ask for it, as torch's own linear would."""
    flat = matrix(x)
    return x.reshape(-1, x.shape[-1]) if flat is None else flat


class Needs(NamedTuple):
    """Which gradients are wanted."""

    x: bool
    weight: bool
    bias: bool
    a: Sequence[bool]
    b: Sequence[bool]

    @property
    def adapters(self) -> bool:
        """True where any factor wants one."""
        return any(self.a) or any(self.b)


class Grads(NamedTuple):
    """The gradients, None where nobody wants one; those of factors have the factors' own types."""

    x: torch.Tensor | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    a: list[torch.Tensor | None]
    b: list[torch.Tensor | None]


class Implementation(Protocol):
    """One way to compute the call; `s` [vectors, rank] holds the shrunk activations x A^T of every row's adapter.

    Where a call merges (`merged.merges`) the merged weight [out, in] takes its place.
    """

    def forward(self, call: Call, keep: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(y [B, ..., out], s); s may be None where a backward pass will not need it or can make it again."""
        ...

    def backward(self, call: Call, dy: torch.Tensor, s: torch.Tensor | None, needs: Needs) -> Grads:
        """The gradients that are needed, from dL/dy."""
        ...

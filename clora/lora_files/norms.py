"""|delta| in the Frobenius norm, without building a delta."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from clora.lora_files.kinds import Entry


def product_norm(a: torch.Tensor, b: torch.Tensor) -> float:
    """|b a| from the Gram matrices, [r, r] each: |b a|^2 = tr(b^T b a a^T); to some six digits."""
    a, b = a.float(), b.float()
    return sqrt(max(0.0, float(((a @ a.T).double() * (b.T @ b).double()).sum())))


def entry_norm(entry: Entry, tensors: Mapping[str, torch.Tensor], scale: float) -> float | None:
    """|scale B A| of one linear's LoRA; None for DoRA, which only the base's weight can tell."""
    if entry.magnitude is not None:
        return None
    return abs(scale) * product_norm(*entry.factors(tensors))

"""The plain torch computation of a LoRA linear with row segments: what every other kernel is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch.nn.functional import linear

#: (row count, A [r, in], B [out, r], scale); None where the rows use the bare base
Segment: TypeAlias = "tuple[int, torch.Tensor | None, torch.Tensor | None, float]"


def eager_lora_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, segments: Sequence[Segment]
) -> torch.Tensor:
    """y = x W^T + b + scale (x A^T) B^T with each segment's own A, B; x [B, ..., in] -> [B, ..., out].

    The addition is made in place on the base's fresh output: no backward needs that output, and a pass over y is saved.
    """
    return add_segments(linear(x, weight, bias), x, segments)


def add_segments(y: torch.Tensor, x: torch.Tensor, segments: Sequence[Segment]) -> torch.Tensor:
    """Add scale (x A^T) B^T to the base's fresh output y [B, ..., out], in place."""
    start = 0
    for rows, a, b, scale in segments:
        if a is not None and b is not None:
            whole = rows == x.shape[0]
            part, out = (x, y) if whole else (x[start : start + rows], y[start : start + rows])
            shrunk = part.reshape(-1, part.shape[-1]) @ a.to(x.dtype).T
            out.view(-1, out.shape[-1]).addmm_(shrunk, b.to(x.dtype).T, alpha=scale)
        start += rows
    return y

"""What a LoRA linear is called with, as the table that every implementation sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from clora_triton.call import Call, Dropout
from clora_triton.checks import check_dropout, check_factors
from clora_triton.dropout import seed_on
from clora_triton.merged import merges

#: (row count, A [r, in], B [out, r], scale); None where the rows use the bare base
Segment: TypeAlias = "tuple[int, torch.Tensor | None, torch.Tensor | None, float | torch.Tensor]"


def cast_as(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As autocast does it, which leaves float64 alone."""
    return x if x.dtype == torch.float64 else x.to(dtype)


def call_of(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    segments: Sequence[Segment],
    dropout: float | Sequence[float] = 0.0,
    seed: int | torch.Tensor | None = None,
) -> Call:
    """The segments as a table: an adapter that several share stands in it once, so that its gradient is one sum."""
    shares = check_dropout(dropout, seed, len(segments)) if dropout else [0.0] * len(segments)
    adapters: list[tuple[torch.Tensor, torch.Tensor, Any, float]] = []
    rows: list[int] = []
    which: list[int] = []
    for index, (count, a, b, scale) in enumerate(segments):
        rows.append(count)
        which.append(-1)
        if a is not None and b is not None:
            for i, (known_a, known_b, known_scale, known_share) in enumerate(adapters):
                if known_a is a and known_b is b and known_scale is scale and known_share == shares[index]:
                    which[-1] = i
            if which[-1] < 0:
                check_factors(x, weight, a, b, f"segment {index}")
                which[-1] = len(adapters)
                adapters.append((a, b, scale, shares[index]))
        elif a is not None or b is not None:
            have, lack = ("A", "B") if b is None else ("B", "A")
            raise ValueError(f"lora_linear: segment {index}: expected A and B or neither, got {have} without {lack}")
    a, b, scales = [each[0] for each in adapters], [each[1] for each in adapters], [each[2] for each in adapters]
    for i, scale in enumerate(scales):
        if isinstance(scale, torch.Tensor) and _far(scale):
            b[i], scales[i] = b[i] * scale, 1.0
    used = [each[3] for each in adapters]
    hidden = Dropout(used, seed_on(x.device, seed)) if any(used) else None
    return Call(x, weight, bias, a, b, scales, rows, which, hidden)


def _far(scale: torch.Tensor) -> bool:
    """Whether reading a scale would wait for a GPU, and a recorded graph would keep its first value.

    Such a scale goes into B, as a product that torch differentiates.
    """
    return scale.device.type != "cpu"


def keeps(call: Call, grad: bool) -> bool:
    """Whether the shrunk activations, or the merged weight, are worth keeping for the backward pass."""
    return grad and (any(b.requires_grad for b in call.b) or merges(call))

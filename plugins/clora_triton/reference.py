"""The LoRA linear and its gradients from their formulas in float64: the oracle of every test."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen

from clora_triton.op import Segment


@frozen
class Reference:
    """y and the gradients of sum(y * dy), all float64; da and db hold one entry a segment, None where it has none."""

    y: torch.Tensor
    dx: torch.Tensor
    dweight: torch.Tensor
    dbias: torch.Tensor
    da: list[torch.Tensor | None]
    db: list[torch.Tensor | None]


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    segments: Sequence[Segment],
    dy: torch.Tensor | None = None,
    seen: torch.Tensor | None = None,
) -> Reference:
    """y = x W^T + b + scale (x A^T) B^T, row segment by row segment; x [B, ..., in], dy [B, ..., out].

    dx = dy W + scale (dy B) A, dA = scale (dy B)^T x, dB = scale dy^T (x A^T); without dy all gradients are zero.
    With `seen` [B, ..., in] (a dropout's mask over 1 - p) the adapters have seen * x for x, and dx has their part times
    seen.
    An adapter that serves several segments has the sum of their entries.
    """
    x, weight = x.detach().double(), weight.detach().double()
    y = torch.einsum("...i,oi->...o", x, weight)
    if bias is not None:
        y = y + bias.detach().double()
    seen = torch.ones_like(x) if seen is None else seen.double()
    g = torch.zeros_like(y) if dy is None else dy.detach().double()
    dx = torch.einsum("...o,oi->...i", g, weight)
    da: list[torch.Tensor | None] = []
    db: list[torch.Tensor | None] = []
    start = 0
    for rows, a, b, scale in segments:
        here = slice(start, start + rows)
        start += rows
        if a is None or b is None:
            da.append(None)
            db.append(None)
            continue
        a, b, scale = a.detach().double(), b.detach().double(), float(scale)
        its = seen[here] * x[here]
        s = torch.einsum("...i,ri->...r", its, a)
        ds = torch.einsum("...o,or->...r", g[here], b) * scale
        y[here] += scale * torch.einsum("...r,or->...o", s, b)
        dx[here] += seen[here] * torch.einsum("...r,ri->...i", ds, a)
        da.append(ds.reshape(-1, a.shape[0]).T @ its.reshape(-1, a.shape[1]))
        db.append(scale * g[here].reshape(-1, b.shape[0]).T @ s.reshape(-1, a.shape[0]))
    flat = g.reshape(-1, g.shape[-1])
    return Reference(y, dx, flat.T @ x.reshape(-1, x.shape[-1]), flat.sum(0), da, db)

"""Products with a LoRA's few columns, over rows that may lie strided: nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from clora_triton.call import matrix


def narrow(x: torch.Tensor, a: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """x A^T [vectors, r] of x [B, ..., in] where it lies."""
    flat = matrix(x)
    if flat is not None:
        return torch.mm(flat, a.T, out=out)
    if out is None:
        out = x.new_empty(x.numel() // x.shape[-1], a.shape[0])
    for part, rows in planes(x):
        torch.mm(part, a.T, out=out[rows])
    return out


def outer(left: torch.Tensor, x: torch.Tensor, scale: float, into: torch.Tensor | None) -> torch.Tensor:
    """scale left^T x added to `into`, at least float32; left [vectors, m] and x [B, ..., n], where it lies."""
    if x.dtype not in (torch.float32, torch.float64):
        left, x = left.float(), x.float()
    for part, rows in planes(x):
        if into is None:
            into = torch.empty(left.shape[1], x.shape[-1], dtype=x.dtype, device=x.device)
            torch.addmm(into, left[rows].T, part, beta=0, alpha=scale, out=into)
        else:
            into.addmm_(left[rows].T, part, alpha=scale)
    return torch.zeros(left.shape[1], x.shape[-1], dtype=x.dtype, device=x.device) if into is None else into


def planes(x: torch.Tensor) -> Iterator[tuple[torch.Tensor, slice]]:
    """The matrices [vectors, n] of which x [..., n] is a stack, with their rows' places; nothing is copied."""
    flat = matrix(x)
    if flat is not None:
        yield flat, slice(0, flat.shape[0])
        return
    at = 0
    for part in x:
        for plane, _ in planes(part):
            yield plane, slice(at, at + plane.shape[0])
            at += plane.shape[0]


def final(
    found: list[torch.Tensor | None], factors: Sequence[torch.Tensor], needed: Sequence[bool]
) -> list[torch.Tensor | None]:
    """Contiguous gradients in the factors' types; zero for an adapter that no row used."""
    grads: list[torch.Tensor | None] = []
    for grad, factor, wanted in zip(found, factors, needed, strict=True):
        if not wanted:
            grads.append(None)
        else:
            grads.append(torch.zeros_like(factor) if grad is None else grad.to(factor.dtype).contiguous())
    return grads

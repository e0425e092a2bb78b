"""A group of linears on a CPU, one adapter each for all rows: it goes into the weights, once for both passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from clora_triton.call import Call, rows_as_matrix
from clora_triton.group_torch import base
from clora_triton.merged import factor_gradients, merge, through_weight
from clora_triton.skinny import narrow, outer


def merges_together(calls: Sequence[Call]) -> bool:
    """True where products with W + scale B A take fewer multiplications, by the count of `merged.merges` over all.

    Base weights and biases must not want gradients. Whether factors or x want them does not matter: a pass that is made
    again has the same bits.
    """
    x = calls[0].x
    if len(calls[0].rows) != 1 or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    if any(call.weight.requires_grad or (call.bias is not None and call.bias.requires_grad) for call in calls):
        return False
    covered = [call for call in calls if call.a]
    rows = sum(call.vectors * sum(call.weight.shape) for call in covered)
    return rows > sum(call.weight.numel() for call in covered)


def merged_linears(calls: Sequence[Call]) -> list[torch.Tensor]:
    """y of every linear of a group that merges, differentiated here."""
    if not torch.is_grad_enabled():
        x = calls[0].x.contiguous()
        return [linear(x, merge(call) if call.a else call.weight, call.bias) for call in calls]
    return list(_MergedTogether.apply(calls, calls[0].x, *(f for call in calls for f in (*call.a, *call.b))))


class _MergedTogether(torch.autograd.Function):
    """As little Python as a backward pass of our own can have: at a few hundred rows that is what a group costs."""

    @staticmethod
    def forward(ctx: Any, calls: Sequence[Call], x: torch.Tensor, *factors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = [merge(call) if call.a else call.weight for call in calls]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *weights, *factors)
        ctx.scales = [call.scales[0] if call.a else None for call in calls]
        flat = rows_as_matrix(x)
        return tuple(base(x, flat, weight, call.bias) for call, weight in zip(calls, weights, strict=True))

    @staticmethod
    def backward(ctx: Any, *dys: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        weights, factors = saved[: len(dys)], iter(saved[len(dys) :])
        need_x, *need = ctx.needs_input_grad[1:]
        needs = iter(need)
        dx: torch.Tensor | None = None
        found: list[torch.Tensor | None] = []
        apart: list[tuple[Call, torch.Tensor, int]] = []
        for weight, scale, dy in zip(weights, ctx.scales, dys, strict=True):
            g = None if dy is None else rows_as_matrix(dy)
            if need_x and g is not None:
                dx = g @ weight if dx is None else dx.addmm_(g, weight)
            if scale is None:
                continue
            a, b, need_a, need_b = next(factors), next(factors), next(needs), next(needs)
            call = Call(x, weight, None, (a,), (b,), (scale,), (x.shape[0],), (0,))
            at = len(found)
            found += [None, None]
            if g is not None and need_a and need_b and not through_weight(call.weight.shape, a.shape[0]):
                apart.append((call, g, at))
            elif g is not None and (need_a or need_b):
                found[at : at + 2] = factor_gradients(call, g, need_a, need_b)
        _narrow_gradients(x, apart, found)
        factors = saved[len(dys) :]
        found = [None if d is None else d.to(f.dtype).contiguous() for d, f in zip(found, factors, strict=True)]
        return None, None if dx is None else dx.view(x.shape), *found


def _narrow_gradients(
    x: torch.Tensor, apart: Sequence[tuple[Call, torch.Tensor, int]], found: list[torch.Tensor | None]
) -> None:
    """dA and dB by products with the factors, x being read once for all A and once for all dA; into `found`."""
    if not apart:
        return
    dtype = apart[0][1].dtype
    ranks = [call.rank for call, _, _ in apart]
    s = narrow(x, torch.cat([call.a[0].to(dtype) for call, _, _ in apart]))
    ds = torch.empty_like(s)
    for (call, g, _), into in zip(apart, ds.split(ranks, 1), strict=True):
        torch.addmm(into, g, call.b[0].to(dtype), beta=0, alpha=call.scales[0], out=into)
    stacked = outer(ds, x, 1.0, None).split(ranks)
    for (call, g, at), da, mine in zip(apart, stacked, s.split(ranks, 1), strict=True):
        # s^T dy is quicker than dy^T s, whose few columns would be written row by row
        found[at], found[at + 1] = da, outer(mine, g, call.scales[0], None).T

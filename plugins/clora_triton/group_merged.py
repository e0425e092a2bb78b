"""A group of linears on a CPU whose adapters go into the weights, where one adapter each serves all rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clora_triton.call import Call, Grads, Needs, rows_as_matrix
from clora_triton.group_torch import Backward, Found, Sums, base, empty, narrow_gradients, shaped, sum_dx
from clora_triton.skinny import outer
from clora_triton.stacks import Group


def merges(group: Group) -> bool:
    """True where products with W + scale B A take fewer multiplications than those beside W.

    Beside W an adapter takes rows x rank x (in + out) forward and twice that backward; merged, in x out x rank for each
    of two sums and the cheaper way to dA and dB (see `whole`). Whether a gradient is wanted does not matter: a pass
    that is made again has the same bits. Only in full precision, as half would round the adapter away, and only where
    one stack serves all rows, so that B = 0 gives the frozen linears' own bits.
    """
    x = group.x
    if len(group.which) != 1 or group.which[0] < 0 or x.device.type != "cpu":
        return False
    if x.dtype not in (torch.float32, torch.float64):
        return False
    sums = sum(call.rank * call.weight.numel() for call in group.calls)
    beside = sum(call.vectors * call.rank * sum(call.weight.shape) for call in group.calls)
    return 2 * sums + min(2 * beside, sum(map(_whole, group.calls))) < 3 * beside


def whole(call: Call) -> bool:
    """True where dA and dB are had with fewer multiplications from the whole dL/dW = dy^T x than by narrow products."""
    return _whole(call) < 2 * call.vectors * call.rank * sum(call.weight.shape)


def _whole(call: Call) -> int:
    return call.weight.numel() * (call.vectors + 2 * call.rank)


class Merged:
    """x (W + scale B A)^T for every linear; the sums are made again in the backward pass. A `Together`."""

    def forward(self, group: Group, keep: bool) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """(y [B, ..., out] of each linear, None)."""
        flat = rows_as_matrix(group.x)
        return [base(group.x, flat, merged(call), call.bias) for call in group.calls], None

    def backward(
        self, group: Group, dys: Sequence[torch.Tensor | None], s: torch.Tensor | None, needs: Sequence[Needs]
    ) -> tuple[torch.Tensor | None, list[Grads]]:
        """dx and every linear's gradients."""
        work = Backward(group, [None if dy is None else rows_as_matrix(dy) for dy in dys], needs)
        dx = sum_dx(work, [merged(call) for call in group.calls]) if needs[0].x else None
        if all(whole(call) for call in group.calls if call.which[0] >= 0):
            return shaped(work, dx, *whole_gradients(work))
        sums, db = Sums(), empty(group)
        for stack, here, at in group.segments():
            narrow_gradients(work, stack, here, at, None, None, sums, db)
        return shaped(work, dx, sums.split(group), db)


def merged(call: Call) -> torch.Tensor:
    """W + scale B A of the only segment's adapter, or W where it has none."""
    (i,), dtype = call.which, call.weight.dtype
    if i < 0:
        return call.weight
    return torch.addmm(call.weight, call.b[i].to(dtype), call.a[i].to(dtype), alpha=call.scales[i])


def whole_gradients(work: Backward) -> tuple[Found, Found]:
    """dA = scale B^T dW and dB^T = scale A dW^T of every linear."""
    da, db = empty(work.group), empty(work.group)
    for linear, (call, g, needs) in enumerate(zip(work.group.calls, work.gs, work.needs, strict=True)):
        (i,) = call.which
        if g is None or i < 0 or not (needs.a[i] or needs.b[i]):
            continue
        dw = outer(g, call.x, call.scales[i], None)
        if needs.a[i]:
            da[linear][i] = call.b[i].to(dw.dtype).T @ dw
        if needs.b[i]:
            db[linear][i] = call.a[i].to(dw.dtype) @ dw.T
    return da, db

"""One adapter for all rows on a CPU: its product goes into the weight, once for both passes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

from clora_triton.call import Call, matrix, rows_as_matrix
from clora_triton.skinny import narrow, outer


def merges(call: Call) -> bool:
    """True where the rows are so many that one product with W + scale B A is the cheapest.

    The sum costs out in r multiplications once, the factors' own way (in + out) r for every row and another pass over y
    and dx; the sum that is kept for the backward pass is smaller than x and y together. Only where one adapter serves
    all rows: B = 0 then gives the frozen linear's own bits, which products over parts of the rows need not have. Half
    precision would round the adapter away, and with dropout every row has an adapter of its own, so they never do.
    """
    x = call.x
    if len(call.rows) != 1 or call.which[0] < 0 or x.device.type != "cpu" or call.dropout is not None:
        return False
    outputs, inputs = call.weight.shape
    return call.vectors * (outputs + inputs) > outputs * inputs and x.dtype in (torch.float32, torch.float64)


def merge(call: Call) -> torch.Tensor:
    """W + scale B A of the only segment's adapter."""
    i, dtype = call.which[0], call.weight.dtype
    return torch.addmm(call.weight, call.b[i].to(dtype), call.a[i].to(dtype), alpha=call.scales[i])


def merged_linear(call: Call) -> torch.Tensor:
    """y of a call that merges, differentiated here; base weight and bias must not want gradients."""
    i = call.which[0]
    if not torch.is_grad_enabled():
        return linear(call.x, merge(call), call.bias)
    return _MergedLinear.apply(call, call.x, call.a[i], call.b[i])


def through_weight(call: Call) -> bool:
    """True where dA and dB cost less through dW = dy^T x; by measured weights, as narrow products are slower."""
    outputs, inputs = call.weight.shape
    return 2 * outputs * inputs <= 3 * call.rank * (outputs + inputs)


def factor_gradients(
    call: Call, g: torch.Tensor, need_a: bool, need_b: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """dA and dB of the only segment's adapter from dL/dy [vectors, out], in g's type.

    Through dW = dy^T x where that is less work than the four products with factors, each of which costs
    rows r (in or out); they are slower for their size, so the comparison is by measured weights.
    """
    i, x = call.which[0], call.x
    a, b, scale = call.a[i].to(g.dtype), call.b[i].to(g.dtype), call.scales[i]
    flat = matrix(x)
    if need_a and need_b and flat is not None and through_weight(call):
        dw = g.T @ flat
        return torch.mm(b.T, dw).mul_(scale), torch.mm(dw, a.T).mul_(scale)
    da = outer(g @ b, x, scale, None) if need_a else None
    # s^T dy is quicker than dy^T s, whose few columns would be written row by row
    return da, outer(narrow(x, a), g, scale, None).T if need_b else None


class _MergedLinear(torch.autograd.Function):
    """The least Python that a backward pass of our own can have: at a few hundred rows that is what a call costs."""

    @staticmethod
    def forward(ctx: Any, call: Call, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        weight = merge(call)
        ctx.save_for_backward(x, weight, a, b)
        ctx.scales = call.scales
        return linear(x, weight, call.bias)

    @staticmethod
    def backward(ctx: Any, *dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        need_x, need_a, need_b = ctx.needs_input_grad[1:]
        g = rows_as_matrix(dy[0])
        dx = (g @ weight).view(x.shape) if need_x else None
        if not (need_a or need_b):
            return None, dx, None, None
        call = Call(x, weight, None, (a,), (b,), ctx.scales, (x.shape[0],), (0,))
        da, db = factor_gradients(call, g, need_a, need_b)
        da = None if da is None else da.to(a.dtype)
        return None, dx, da, None if db is None else db.to(b.dtype).contiguous()

"""One adapter for all rows on a CPU: its product goes into the weight, once for both passes."""

from __future__ import annotations

from collections.abc import Sequence
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


def merged_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scale: float
) -> torch.Tensor:
    """y of a call that merges; base weight and bias must not want gradients.

    Where dA and dB go through dW torch's own gradients of the two products are the ones wanted, without any Python.
    """
    if a.dtype != x.dtype or b.dtype != x.dtype:
        a, b = a.to(x.dtype), b.to(x.dtype)
    if not torch.is_grad_enabled() or through_weight(weight.shape, a.shape[0]):
        return linear(x, torch.addmm(weight, b, a, alpha=scale), bias)
    return _MergedLinear.apply(x, weight, bias, a, b, scale)


def plainly_merged(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, segment: Sequence[Any]
) -> torch.Tensor | None:
    """y of a sound call of the commonest kind that merges; None for all else, errors too, which goes the long way.

    At a few hundred rows each question costs a thousandth of the call, so there are few.
    """
    rows, a, b, scale = segment
    if a is None or b is None or not isinstance(scale, float | int) or weight.dim() != 2 or not x.is_cpu:
        return None
    shape, dtype, (outputs, inputs) = x.shape, x.dtype, weight.shape
    if not (len(shape) > 1 and shape[0] == rows and shape[-1] == inputs):
        return None
    if not (a.dim() == 2 and len(a) and a.shape[1] == inputs and b.shape == (outputs, len(a))):
        return None
    if x.numel() * (outputs + inputs) <= outputs * inputs * inputs:  # `merges`
        return None
    if not (dtype is torch.float32 and weight.dtype is dtype and a.dtype is dtype and b.dtype is dtype):
        return None
    if not (weight.is_cpu and a.is_cpu and b.is_cpu) or weight.requires_grad:
        return None
    if bias is not None and not (bias.shape == (outputs,) and bias.dtype is dtype and bias.is_cpu):
        return None
    return None if bias is not None and bias.requires_grad else merged_linear(x, weight, bias, a, b, scale)


def through_weight(shape: torch.Size, rank: int) -> bool:
    """True where dA and dB cost less through dW = dy^T x; by measured weights, as narrow products are slower."""
    outputs, inputs = shape
    return 2 * outputs * inputs <= 3 * rank * (outputs + inputs)


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
    if need_a and need_b and flat is not None and through_weight(call.weight.shape, a.shape[0]):
        dw = g.T @ flat
        return torch.mm(b.T, dw).mul_(scale), torch.mm(dw, a.T).mul_(scale)
    da = outer(g @ b, x, scale, None) if need_a else None
    # s^T dy is quicker than dy^T s, whose few columns would be written row by row
    return da, outer(narrow(x, a), g, scale, None).T if need_b else None


class _MergedLinear(torch.autograd.Function):
    """The least Python that a backward pass of our own can have: at a few hundred rows that is what a call costs."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        merged = torch.addmm(weight, b, a, alpha=scale)
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, *dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        need_x, _, _, need_a, need_b, _ = ctx.needs_input_grad
        g = rows_as_matrix(dy[0])
        dx = torch.mm(g, weight).view(x.shape) if need_x else None
        da = outer(torch.mm(g, b), x, ctx.scale, None) if need_a else None
        # s^T dy is quicker than dy^T s, whose few columns would be written row by row
        db = outer(narrow(x, a), g, ctx.scale, None).T if need_b else None
        return dx, None, None, da, db, None

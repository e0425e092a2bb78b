"""`lora_linears`: several LoRA linears of one input as one computation, such as attention's q, k and v."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch.nn.functional import linear

from clora_triton.call import Call, Needs
from clora_triton.candidates import CANDIDATES
from clora_triton.checks import check_base, check_rows
from clora_triton.dispatch import implementation
from clora_triton.given import Segment, call_of, cast_as
from clora_triton.group_merged import merged_linears, merges_together
from clora_triton.group_torch import Stacked
from clora_triton.op import lora_linear
from clora_triton.stacks import Group, Together, group_of

#: (weight [out, in], bias [out] or None, segments as `lora_linear` takes them)
Linear: TypeAlias = "tuple[torch.Tensor, torch.Tensor | None, Sequence[Segment]]"

_STACKED = Stacked()


def lora_linears(x: torch.Tensor, linears: Sequence[Linear], *, kernel: str = "auto") -> list[torch.Tensor]:
    """[y = x W^T + b + scale (x A^T) B^T of every linear], each [B, ..., out], from one x [B, ..., in].

    All linears have the same row counts in their segments; adapters may differ from linear to linear and may be absent
    from some. x is read once with the factors A of a segment's adapters side by side, their gradients are one product,
    and dx is one tensor. Types, gradients, autocast and `kernel` are those of `lora_linear`; in a compiled graph it is
    `lora_linear` for each. Raises ValueError or TypeError that tells what was expected and what came.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x = cast_as(x, dtype)
        linears = [(cast_as(w, dtype), None if b is None else cast_as(b, dtype), table) for w, b, table in linears]
        with torch.autocast(x.device.type, enabled=False):  # the sums of float32 gradients stay float32
            return lora_linears(x, linears, kernel=kernel)
    if len(linears) < 2 or torch.compiler.is_compiling():
        return [lora_linear(x, weight, bias, segments, kernel=kernel) for weight, bias, segments in linears]
    calls = _calls(x, linears)
    if not any(call.a for call in calls):
        return [linear(x, call.weight, call.bias) for call in calls]
    if kernel == "auto" and merges_together(calls):
        return merged_linears(calls)
    grad = torch.is_grad_enabled()
    group, way = _way(calls, grad, kernel)
    if not grad:
        return way.forward(group, keep=False)[0]
    keep = any(b.requires_grad for call in calls for b in call.b)
    return list(_Together.apply(group, way, keep, *group.tensors()))


def _calls(x: torch.Tensor, linears: Sequence[Linear]) -> list[Call]:
    """Every linear's table, checked."""
    calls: list[Call] = []
    for index, (weight, bias, segments) in enumerate(linears):
        check_base(x, weight, bias)
        call = call_of(x, weight, bias, segments)
        if calls and list(call.rows) != list(calls[0].rows):
            expected, actual = list(calls[0].rows), list(call.rows)
            raise ValueError(f"lora_linears: linear {index}: expected linear 0's row counts {expected}, got {actual}")
        calls.append(call._replace(scales=[float(scale) for scale in call.scales]))
    check_rows(calls[0].rows, x.shape[0])
    return calls


def _way(calls: Sequence[Call], grad: bool, kernel: str) -> tuple[Group, Together]:
    """The table and what computes it: torch's products on a CPU, the largest linear's candidate on a GPU."""
    largest = max((call for call in calls if call.a), key=lambda call: call.weight.numel())
    chosen = implementation(largest, grad=grad, kernel=kernel)
    if chosen is CANDIDATES["parts"] or chosen is CANDIDATES["fused"]:
        from clora_triton.group_triton import FUSED, PARTS

        return group_of(calls, aligned=True), FUSED if chosen is CANDIDATES["fused"] else PARTS
    return group_of(calls, aligned=False), _STACKED


class _Together(torch.autograd.Function):
    """All linears of a group as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any, group: Group, way: Together, keep: bool, *tensors: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        ys, s = way.forward(group, keep)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, s)
        ctx.group, ctx.way = group.bare(), way
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *dys: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        *tensors, s = ctx.saved_tensors
        group: Group = ctx.group.filled(tensors)
        wanted = ctx.needs_input_grad[3:]
        needs = [Needs(wanted[0], *asked) for asked in group.split(wanted)]
        with torch.autocast(group.x.device.type, enabled=False):  # whoever calls backward() may be within one
            dx, grads = ctx.way.backward(group, dys, s, needs)
        found = [grad for each in grads for grad in (each.weight, each.bias, *each.a, *each.b)]
        return None, None, None, dx, *found

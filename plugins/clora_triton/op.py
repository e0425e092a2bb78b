"""`lora_linear`: a frozen linear plus a LoRA adapter of its own for every row segment, as a torch custom operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from clora_triton.call import Call, Dropout, Grads, Needs
from clora_triton.checks import check_base, check_rows, check_table
from clora_triton.cpu import is_small, small
from clora_triton.dispatch import implementation
from clora_triton.given import Segment, call_of, cast_as, keeps
from clora_triton.merged import merged_linear, merges, plainly_merged


def lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    segments: Sequence[Segment],
    *,
    dropout: float | Sequence[float] = 0.0,
    seed: int | torch.Tensor | None = None,
    kernel: str = "auto",
) -> torch.Tensor:
    """y = x W^T + b + scale (x A^T) B^T with each segment's own A and B; x [B, ..., in] -> [B, ..., out].

    `segments` covers the rows of x's first axis in order; several may share an adapter. Adapters may be float32 beside
    a half-precision x, and their gradients are summed in float32. Under autocast x and the base are cast, the adapters
    are not. `kernel` names a candidate (see `candidates`), or "triton" for the best of Triton's.

    `dropout` is the share of x that adapters do not see, one number or one for each segment; what they see of x is
    scaled by 1 / (1 - p). The mask is drawn from `seed` (an int, or an int64 tensor of no axes, which a compiled or
    recorded graph reads anew) and is never kept: the backward pass draws it again. Raises ValueError or TypeError that
    tells what was expected and what came.
    """
    if kernel == "auto" and len(segments) == 1 and not dropout and not torch.compiler.is_compiling():
        y = None if torch.is_autocast_enabled("cpu") else plainly_merged(x, weight, bias, segments[0])
        if y is not None:
            return y
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = cast_as(x, dtype), cast_as(weight, dtype)
        bias = None if bias is None else cast_as(bias, dtype)
        with torch.autocast(x.device.type, enabled=False):  # the sums of float32 gradients stay float32
            return lora_linear(x, weight, bias, segments, dropout=dropout, seed=seed, kernel=kernel)
    check_base(x, weight, bias)
    call = call_of(x, weight, bias, segments, dropout, seed)
    check_rows(call.rows, x.shape[0])
    if not call.a:
        return linear(x, weight, bias)
    grad = torch.is_grad_enabled()
    if torch.compiler.is_compiling():
        scales = _as_tensor(call.scales)
        y, _ = torch.ops.clora.lora_linear(
            *call[:3], call.a, call.b, scales, call.rows, call.which, keeps(call, grad), kernel, *_random(call)
        )
        return y
    call = call._replace(scales=[float(scale) for scale in call.scales])
    if kernel == "auto" and merges(call) and not (grad and _trains_base(call)):
        i = call.which[0]
        return merged_linear(x, weight, bias, call.a[i], call.b[i], call.scales[i])
    if kernel == "auto" and is_small(call):
        return small(call)
    if not grad:
        return implementation(call, grad=False, kernel=kernel).forward(call, keep=False)[0]
    return _Eager.apply(call, keeps(call, grad), kernel, *_random(call), x, weight, bias, *call.a, *call.b)


def _trains_base(call: Call) -> bool:
    return call.weight.requires_grad or (call.bias is not None and call.bias.requires_grad)


def _random(call: Call) -> tuple[list[float] | None, torch.Tensor | None]:
    """The operator's last arguments: each adapter's dropout, and the seed."""
    return (None, None) if call.dropout is None else (list(call.dropout.p), call.dropout.seed)


def _as_tensor(scales: Sequence[float | torch.Tensor]) -> torch.Tensor:
    """The scales as one float64 tensor on the CPU; a compiled graph has it as an input and serves every value.

    A number is multiplied with a tensor because dynamo compiles anew for one that is only stored in a tensor.
    """
    one = torch.ones((), dtype=torch.float64, device="cpu")
    return torch.stack([(one * scale).reshape(()) for scale in scales])


class _Eager(torch.autograd.Function):
    """The operator's computation without the operator's own cost, which outweighs a small linear on a CPU."""

    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        keep: bool,
        kernel: str,
        p: list[float] | None,
        seed: torch.Tensor | None,
        *tensors: torch.Tensor | None,
    ) -> torch.Tensor:
        y, s = implementation(call, grad=True, kernel=kernel).forward(call, keep)
        ctx.save_for_backward(*tensors, s, seed)
        ctx.table, ctx.kernel, ctx.p = (call.scales, call.rows, call.which), kernel, p
        return y

    @staticmethod
    def backward(ctx: Any, *dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, bias, *factors, s, seed = ctx.saved_tensors
        half = len(factors) // 2
        call = Call(x, weight, bias, factors[:half], factors[half:], *ctx.table)
        call = call._replace(dropout=_dropout(ctx.p, seed))
        wanted = ctx.needs_input_grad[5:]
        needs = _needs(wanted, half)
        with torch.autocast(x.device.type, enabled=False):  # whoever calls backward() may be within one
            grads = implementation(call, grad=True, kernel=ctx.kernel).backward(call, dy[0], s, needs)
        return *(None,) * 5, grads.x, grads.weight, grads.bias, *grads.a, *grads.b


def _dropout(p: Sequence[float] | None, seed: torch.Tensor | None) -> Dropout | None:
    return None if p is None or seed is None else Dropout(p, seed)


def _of(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    a: list[torch.Tensor],
    b: list[torch.Tensor],
    scales: torch.Tensor,
    rows: list[int],
    which: list[int],
    p: list[float] | None,
    seed: torch.Tensor | None,
) -> Call:
    call = Call(x, weight, bias, a, b, scales.tolist(), rows, which, _dropout(p, seed))
    check_table(call)
    return call


@torch.library.custom_op("clora::lora_linear", mutates_args=())
def _forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    a: list[torch.Tensor],
    b: list[torch.Tensor],
    scales: torch.Tensor,
    rows: list[int],
    which: list[int],
    keep: bool,
    kernel: str,
    p: list[float] | None,
    seed: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(y, s): the shrunk activations s [vectors, rank] or the merged weight where `keep` asks, else an empty tensor.

    p is each adapter's dropout, and seed [] what the mask is drawn from; None where nothing is dropped.
    """
    call = _of(x, weight, bias, a, b, scales, rows, which, p, seed)
    y, s = implementation(call, grad=keep, kernel=kernel).forward(call, keep)
    return y, x.new_empty(0) if s is None else s


@_forward.register_fake
def _(x, weight, bias, a, b, scales, rows, which, keep, kernel, p, seed):
    call = Call(x, weight, bias, a, b, [], rows, which, _dropout(p, seed))
    shape = weight.shape if merges(call) else (call.vectors, call.rank)
    s = x.new_empty(shape) if keep else x.new_empty(0)
    return x.new_empty(*x.shape[:-1], weight.shape[0]), s


@torch.library.custom_op("clora::lora_linear_backward", mutates_args=())
def _backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    a: list[torch.Tensor],
    b: list[torch.Tensor],
    scales: torch.Tensor,
    rows: list[int],
    which: list[int],
    s: torch.Tensor,
    needs: list[bool],
    kernel: str,
    p: list[float] | None,
    seed: torch.Tensor | None,
) -> list[torch.Tensor]:
    """[dx, dweight, dbias, dA..., dB...]; an empty tensor stands for a gradient that nobody needs."""
    call = _of(x, weight, bias, a, b, scales, rows, which, p, seed)
    kept = s if s.dim() == 2 else None
    grads = implementation(call, grad=True, kernel=kernel).backward(call, dy, kept, _needs(needs, len(a)))
    return [x.new_empty(0) if grad is None else grad for grad in _all(grads)]


@_backward.register_fake
def _(dy, x, weight, bias, a, b, scales, rows, which, s, needs, kernel, p, seed):
    likes = [x, weight, bias, *a, *b]
    return [t.new_empty(t.shape) if wanted else x.new_empty(0) for t, wanted in zip(likes, needs, strict=True)]


def _needs(flags: Sequence[bool], adapters: int) -> Needs:
    return Needs(flags[0], flags[1], flags[2], flags[3 : 3 + adapters], flags[3 + adapters :])


def _all(grads: Grads) -> list[torch.Tensor | None]:
    return [grads.x, grads.weight, grads.bias, *grads.a, *grads.b]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, weight, bias, a, b, scales, rows, which, _, kernel, p, seed = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, *a, *b, scales, output[1], seed)
    ctx.table, ctx.kernel, ctx.p = (rows, which), kernel, p


def _gradients(ctx: Any, dy: torch.Tensor | None, _: torch.Tensor | None) -> tuple[Any, ...]:
    x, weight, bias, *factors, scales, s, seed = ctx.saved_tensors
    half = len(factors) // 2
    a, b = factors[:half], factors[half:]
    wanted = ctx.needs_input_grad
    needs = [*wanted[:3], *wanted[3], *wanted[4]]
    if dy is None:
        return (None,) * 3, [None] * half, [None] * half, *(None,) * 7
    with torch.autocast(x.device.type, enabled=False):
        found = _backward(dy, x, weight, bias, a, b, scales, *ctx.table, s, needs, ctx.kernel, ctx.p, seed)
    grads = [grad if want else None for grad, want in zip(found, needs, strict=True)]
    return (*grads[:3], grads[3 : 3 + half], grads[3 + half :], *(None,) * 7)


_forward.register_autograd(_gradients, setup_context=_save)

"""`lora_mlp`: two LoRA linears with an activation between them, of whose two hidden tensors only one is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import gelu, silu

from clora_triton.call import Call, Grads, Implementation, Needs
from clora_triton.checks import check_base, check_rows
from clora_triton.dispatch import implementation
from clora_triton.given import call_of, cast_as, keeps
from clora_triton.groups import Linear
from clora_triton.op import lora_linear
from clora_triton.stacks import Group

_aten = torch.ops.aten


class Activation(NamedTuple):
    """A function of every number, in place of it, and its gradient in place of the one behind it."""

    of: Callable[[torch.Tensor], torch.Tensor]
    in_place: Callable[[torch.Tensor], torch.Tensor]
    backward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (dL/d of(h), h) -> dL/dh


def _gelu(approximate: str) -> Activation:
    return Activation(
        lambda h: gelu(h, approximate=approximate),
        lambda h: _aten.gelu_.default(h, approximate=approximate),
        lambda d, h: _aten.gelu_backward.grad_input(d, h, approximate=approximate, grad_input=d),
    )


ACTIVATIONS = {
    "gelu_tanh": _gelu("tanh"),
    "gelu": _gelu("none"),
    "silu": Activation(
        silu, lambda h: silu(h, inplace=True), lambda d, h: _aten.silu_backward.grad_input(d, h, grad_input=d)
    ),
}


def lora_mlp(
    x: torch.Tensor, up: Linear, down: Linear, *, activation: str = "gelu_tanh", kernel: str = "auto"
) -> torch.Tensor:
    """y = down(activation(up(x))) with the LoRA linears `up` and `down`; x [B, ..., in] -> [B, ..., out].

    `up` and `down` are (weight, bias, segments) as for `lora_linear`. Between the passes only the hidden numbers before
    the activation are kept, which the backward pass applies again; composed of its parts, autograd keeps those behind
    it too. `activation` is "gelu_tanh", "gelu" or "silu". In a compiled graph it is its parts, as that compiler chooses
    itself what to keep. Raises ValueError or TypeError that tells what was expected and what came.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"lora_mlp: activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x = cast_as(x, dtype)
        up, down = ((cast_as(w, dtype), None if b is None else cast_as(b, dtype), table) for w, b, table in (up, down))
        with torch.autocast(x.device.type, enabled=False):  # the sums of float32 gradients stay float32
            return lora_mlp(x, up, down, activation=activation, kernel=kernel)
    if torch.compiler.is_compiling():
        hidden = ACTIVATIONS[activation].of(lora_linear(x, *up, kernel=kernel))
        return lora_linear(hidden, *down, kernel=kernel)
    hidden = x.new_empty(()).expand(*x.shape[:-1], up[0].shape[0])  # its shape alone: nothing is computed yet
    pair = Group((_checked(x, up), _checked(hidden, down)), (), ())
    if not torch.is_grad_enabled():
        h, _ = _way(pair.calls[0], kernel, grad=False).forward(pair.calls[0], keep=False)
        call = pair.calls[1]._replace(x=ACTIVATIONS[activation].in_place(h))
        return _way(call, kernel, grad=False).forward(call, keep=False)[0]
    return _Mlp.apply(pair, activation, kernel, *pair.tensors())


def _checked(x: torch.Tensor, given: Linear) -> Call:
    weight, bias, segments = given
    check_base(x, weight, bias)
    call = call_of(x, weight, bias, segments)
    check_rows(call.rows, x.shape[0])
    return call._replace(scales=[float(scale) for scale in call.scales])


def _way(call: Call, kernel: str, *, grad: bool) -> Implementation:
    """What computes one of the two; a linear without adapters is the base's product by any name."""
    return implementation(call, grad=grad, kernel=kernel if call.a else "addmm")


class _Mlp(torch.autograd.Function):
    """Both linears and what is between them as one node of the graph."""

    @staticmethod
    def forward(ctx: Any, pair: Group, activation: str, kernel: str, *tensors: torch.Tensor | None) -> torch.Tensor:
        up, down = pair.calls
        h, kept_up = _way(up, kernel, grad=True).forward(up, keeps(up, True))
        down = down._replace(x=ACTIVATIONS[activation].of(h))
        y, kept_down = _way(down, kernel, grad=True).forward(down, keeps(down, True))
        ctx.save_for_backward(*tensors, h, kept_up, kept_down)
        ctx.pair, ctx.activation, ctx.kernel = pair.bare(), activation, kernel
        return y

    @staticmethod
    def backward(ctx: Any, *dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *tensors, h, kept_up, kept_down = ctx.saved_tensors
        pair: Group = ctx.pair.filled(tensors)
        wanted = ctx.needs_input_grad[3:]
        first, second = (Needs(False, *asked) for asked in pair.split(wanted))
        first = first._replace(x=wanted[0])
        second = second._replace(x=first.x or first.weight or first.bias or first.adapters)
        kept = h, kept_up, kept_down
        with torch.autocast(h.device.type, enabled=False):  # whoever calls backward() may be within one
            before, behind = _backward(pair, ACTIVATIONS[ctx.activation], ctx.kernel, kept, dy[0], first, second)
        found = [grad for each in (before, behind) for grad in (each.weight, each.bias, *each.a, *each.b)]
        return None, None, None, before.x, *found


def _backward(
    pair: Group,
    activation: Activation,
    kernel: str,
    kept: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    dy: torch.Tensor,
    first: Needs,
    second: Needs,
) -> tuple[Grads, Grads]:
    """The gradients of both; what `_Mlp.forward` made of the activation is made again and let go at once."""
    h, kept_up, kept_down = kept
    up, down = pair.calls
    down = down._replace(x=activation.of(h))
    behind = _way(down, kernel, grad=True).backward(down, dy, kept_down, second)
    del down
    if behind.x is None:
        return Grads(None, None, None, [None] * len(up.a), [None] * len(up.b)), behind
    dh = activation.backward(behind.x, h)
    return _way(up, kernel, grad=True).backward(up, dh, kept_up, first), behind

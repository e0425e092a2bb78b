"""The ways to compute a LoRA linear that the kernel benchmark compares; all from the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
from attrs import frozen
from clora_triton import use_with_peft
from clora_triton.op import Segment, lora_linear
from kernel_cases import Case
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import nn
from torch.nn.functional import linear

from clora.adapters.eager import eager_lora_linear

#: y, or the y of every linear of a group
Answer = torch.Tensor | list[torch.Tensor]


@frozen
class Provider:
    """A name, y = forward(x), and the parameters that learn."""

    name: str
    forward: Callable[[torch.Tensor], Answer]
    parameters: list[torch.Tensor]


@frozen
class Weights:
    """A frozen linear with bias, and float32 factors of every adapter."""

    base: nn.Linear
    a: list[torch.Tensor]
    b: list[torch.Tensor]
    scale: float

    @classmethod
    def of(cls, case: Case, device: str) -> Weights:
        """Random weights of ordinary size; B is not zero, as it would be before any training."""
        made = torch.Generator().manual_seed(case.inputs * 31 + case.outputs)
        base = nn.Linear(case.inputs, case.outputs, device=device, dtype=case.dtype).requires_grad_(False)
        a = [torch.randn(case.rank, case.inputs, generator=made) / case.inputs**0.5 for _ in range(case.adapters)]
        b = [torch.randn(case.outputs, case.rank, generator=made) / case.rank**0.5 for _ in range(case.adapters)]
        return cls(base, [v.to(device).requires_grad_() for v in a], [v.to(device).requires_grad_() for v in b], 0.5)


class _Addmm(torch.autograd.Function):
    """The graph of cuBLAS calls that hand-written LoRA layers use: shrink, then `addmm_` on the base's output."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, case: Case, weights: Weights, *factors: torch.Tensor) -> torch.Tensor:
        y = linear(x, weights.base.weight, weights.base.bias)
        half = len(factors) // 2
        start = 0
        for rows, a, b in zip(case.parts, factors[:half], factors[half:], strict=True):
            part, out = x[start : start + rows].flatten(0, 1), y[start : start + rows].flatten(0, 1)
            out.addmm_(part @ a.to(x.dtype).T, b.to(x.dtype).T, alpha=weights.scale)
            start += rows
        ctx.save_for_backward(x, *factors)
        ctx.case, ctx.weights = case, weights
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *factors = ctx.saved_tensors
        case, weights, dy = ctx.case, ctx.weights, grads[0]
        half = len(factors) // 2
        dx = dy @ weights.base.weight
        da: list[torch.Tensor] = []
        db: list[torch.Tensor] = []
        start = 0
        for rows, a, b in zip(case.parts, factors[:half], factors[half:], strict=True):
            here = slice(start, start + rows)
            start += rows
            part, out = x[here].flatten(0, 1), dy[here].flatten(0, 1)
            low, up = a.to(x.dtype), b.to(x.dtype)
            ds = out @ up
            dx[here].flatten(0, 1).addmm_(ds, low, alpha=weights.scale)
            da.append((ds.T @ part).to(a.dtype).mul_(weights.scale))
            db.append((out.T @ (part @ low.T)).to(b.dtype).mul_(weights.scale))
        return dx, None, None, *da, *db


def peft_layer(case: Case, weights: Weights, dtype: torch.dtype) -> Linear:
    """PEFT's layer with the same adapters, in `dtype`."""
    config = LoraConfig(r=case.rank, lora_alpha=cast(int, case.rank * weights.scale), init_lora_weights=False)
    layer = Linear(weights.base, "adapter0", config, r=case.rank, lora_alpha=config.lora_alpha)
    for index in range(1, case.adapters):
        layer.update_layer(f"adapter{index}", case.rank, config.lora_alpha, config=config)
    for index in range(case.adapters):
        for modules, factors in ((layer.lora_A, weights.a), (layer.lora_B, weights.b)):
            modules[f"adapter{index}"].weight = nn.Parameter(factors[index].detach().to(dtype))
    return layer.to(weights.base.weight.device)


def _peft(name: str, case: Case, layer: Linear, call: Callable[..., torch.Tensor]) -> Provider:
    factors: list[Any] = [part.weight for parts in (layer.lora_A, layer.lora_B) for part in parts.values()]
    if case.adapters == 1:
        return Provider(name, call, factors)
    return Provider(name, lambda x: call(x, adapter_names=case.names), factors)


def providers(case: Case, weights: Weights, compiled: bool) -> Iterator[Provider]:
    """All ways; PEFT's with adapters in the base's type and, where that is another, in float32."""
    base, factors = weights.base, [*weights.a, *weights.b]
    yield Provider("frozen", lambda x: linear(x, base.weight, base.bias), [])
    peft = peft_layer(case, weights, case.dtype)
    yield _peft("PEFT", case, peft, peft)
    if case.dtype != torch.float32:
        masters = peft_layer(case, weights, torch.float32)
        yield _peft("PEFT, fp32 adapters", case, masters, masters)
    if compiled:
        layer = peft_layer(case, weights, case.dtype)
        yield _peft("PEFT compiled", case, layer, torch.compile(layer, dynamic=False))
    yield Provider("addmm_", lambda x: _Addmm.apply(x, case, weights, *factors), factors)
    segments: list[Segment] = [
        (n, a, b, weights.scale) for n, a, b in zip(case.parts, weights.a, weights.b, strict=True)
    ]
    given: dict[str, Any] = {"weight": base.weight, "bias": base.bias, "segments": segments}
    yield Provider("eager", partial(eager_lora_linear, **given), factors)
    yield Provider("ours", partial(lora_linear, **given), factors)
    if base.weight.is_cuda:
        for kernel in ("addmm", "side_stream", "parts", "fused"):
            yield Provider(f"ours: {kernel}", partial(lora_linear, **given, kernel=kernel), factors)
    ours = peft_layer(case, weights, torch.float32)
    use_with_peft(ours)
    yield _peft("PEFT with ours", case, ours, ours)

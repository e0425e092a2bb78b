"""The ways to compute linears that belong together: q, k and v of one input, and the two of an MLP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from attrs import evolve
from clora_triton import lora_linear, lora_linears, lora_mlp, use_with_peft
from clora_triton.op import Segment
from kernel_cases import GROUP, Case
from kernel_providers import Answer, Provider, Weights, peft_layer
from torch.nn.functional import gelu, linear

from clora.adapters.eager import eager_lora_linear

One = Callable[[torch.Tensor], torch.Tensor]


def shared_providers(case: Case, device: str) -> Iterator[Provider]:
    """The frozen linears, PEFT's layers one by one, ours one by one, and ours together."""
    back = evolve(case, inputs=case.outputs, outputs=case.inputs)
    each = [case] * GROUP if case.kind == "group" else [case, back]
    weights = [Weights.of(one, device) for one in each]
    factors = [factor for one in weights for factor in (*one.a, *one.b)]
    operands = [(one.base.weight, one.base.bias, _segments(case, one)) for one in weights]
    kinds = [("PEFT", case.dtype), *([("PEFT, fp32 adapters", torch.float32)] * (case.dtype != torch.float32))]
    yield _composed(
        "frozen", case, [partial(linear, weight=one.base.weight, bias=one.base.bias) for one in weights], []
    )
    for name, dtype in kinds:
        yield _peft(name, case, each, weights, dtype, ours=False)
    for name, compute in (("eager", eager_lora_linear), ("one by one", lora_linear)):
        parts: list[One] = [partial(compute, weight=w, bias=b, segments=segments) for w, b, segments in operands]
        yield _composed(name, case, parts, factors)
    if case.kind == "group":
        yield Provider("ours", lambda x: lora_linears(x, operands), factors)
    else:
        yield Provider("ours", lambda x: lora_mlp(x, *operands), factors)
    yield _peft("PEFT with ours", case, each, weights, torch.float32, ours=True)


def _segments(case: Case, weights: Weights) -> list[Segment]:
    return [(n, a, b, weights.scale) for n, a, b in zip(case.parts, weights.a, weights.b, strict=True)]


def _composed(name: str, case: Case, parts: Sequence[One], factors: list[torch.Tensor]) -> Provider:
    """The linears one after the other, with a GELU between those of an MLP."""

    def group(x: torch.Tensor) -> Answer:
        return [part(x) for part in parts]

    def mlp(x: torch.Tensor) -> Answer:
        up, down = parts
        return down(gelu(up(x), approximate="tanh"))

    return Provider(name, group if case.kind == "group" else mlp, factors)


def _peft(
    name: str, case: Case, each: Sequence[Case], weights: Sequence[Weights], dtype: torch.dtype, *, ours: bool
) -> Provider:
    layers = [peft_layer(one, its, dtype) for one, its in zip(each, weights, strict=True)]
    if ours:
        for layer in layers:
            use_with_peft(layer)
    factors = [part.weight for layer in layers for of in (layer.lora_A, layer.lora_B) for part in of.values()]
    mixed = {} if case.adapters == 1 else {"adapter_names": case.names}
    return _composed(name, case, [partial(layer, **mixed) for layer in layers], factors)

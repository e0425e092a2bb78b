"""Teachers merged without training, through PEFT's own add_weighted_adapter: what a user would try first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from clora.adapters.adapter import Adapter
from clora.errors import CloraError

if TYPE_CHECKING:
    from clora.config.schema import Merge


def _skeleton(shapes: Mapping[str, tuple[int, int]]) -> nn.Module:
    """A module tree that has only the target linears: PEFT merges from A and B alone, the base is not needed."""
    root = nn.Module()
    for target, (inputs, outputs) in shapes.items():
        owner = root
        *path, leaf = target.split(".")
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(leaf, nn.Linear(inputs, outputs, bias=False))
    return root


def _check(adapters: Sequence[Adapter], shapes: Mapping[str, tuple[int, int]], how: Merge) -> None:
    """What PEFT would refuse in words of its own, or fail at."""
    smallest = min((min(shape), module) for module, shape in shapes.items())
    if "svd" in how.method and how.rank > smallest[0]:
        raise CloraError(f"serve.merge.rank {how.rank} is more than {smallest[1]} can have: {smallest[0]}")
    ranks = sorted({slot.rank for adapter in adapters for slot in adapter.slots.values()})
    if how.method == "linear" and len(ranks) > 1:
        raise CloraError(f"serve.merge.method linear needs teachers of one rank; these have {ranks}; try svd or cat")


def merge(adapters: Sequence[Adapter], shapes: Mapping[str, tuple[int, int]], how: Merge, seed: int = 0) -> Adapter:
    """One adapter from several, weighted alike, by PEFT's method `how.method`; it covers what any of them covers.

    The svd methods give rank `how.rank`. Raises CloraError where PEFT cannot merge these adapters in this way.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    covered = {module: shape for module, shape in shapes.items() if any(module in a.factors for a in adapters)}
    _check(adapters, covered, how)
    names = [f"effect_{i}" for i in range(len(adapters))]
    configs = {}
    for name, adapter in zip(names, adapters, strict=True):
        ranks = {module: slot.rank for module, slot in adapter.slots.items()}
        top = max(ranks.values())
        configs[name] = LoraConfig(
            r=top, lora_alpha=top, rank_pattern=ranks, alpha_pattern=ranks, target_modules=list(ranks)
        )
    with torch.random.fork_rng(devices=[]):  # PEFT initialises, and dare drops, from the global generator
        model = LoraModel(_skeleton(covered), configs[names[0]], names[0])
        for name in names[1:]:
            model.peft_config[name] = configs[name]
            model.inject_adapter(model.model, name)
        for name, adapter in zip(names, adapters, strict=True):
            for module, (a, b, scale) in adapter.factors.items():
                layer = model.model.get_submodule(module)
                layer.lora_A[name].weight.data.copy_(a)  # pyright: ignore
                layer.lora_B[name].weight.data.copy_(b * scale)  # pyright: ignore
        torch.manual_seed(seed)
        model.add_weighted_adapter(
            names,
            [how.weight] * len(names),
            "merged",
            how.method,
            svd_rank=how.rank if "svd" in how.method else None,
            density=how.density if "ties" in how.method or "dare" in how.method else None,
        )
    merged = {}
    for module in covered:
        layer = model.model.get_submodule(module)
        a, b = layer.lora_A["merged"].weight, layer.lora_B["merged"].weight  # pyright: ignore
        merged[module] = (a.detach(), b.detach(), float(layer.scaling["merged"]))  # pyright: ignore
    return Adapter.of(merged)

"""Teachers merged without training, through PEFT's own add_weighted_adapter: what a user would try first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from clora.api import CloraError, between

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel
    from torch import nn

    from clora.api import LoraFactors

Shapes = Mapping[str, tuple[int, int]]


@frozen
class PeftMerger:
    """PEFT's merging methods, every teacher weighted alike."""

    method: Literal["svd", "ties_svd", "dare_ties_svd", "linear", "cat"] = "svd"  # PEFT's name of the method
    rank: int = field(default=128, validator=between(1, 16_384))  # of the result, by the svd methods
    #: the share of numbers that ties and dare keep; of 0 none is
    density: float = field(default=0.2, validator=between(0.001, 1.0))
    weight: float = field(default=1.0, validator=between(0.001, 1000.0))  # of every teacher

    def shape_problems(self, shapes: Shapes) -> Iterable[str]:
        """A rank that no linear can have: a product of factors has at most the smaller side's."""
        largest = max(shapes, key=lambda name: min(shapes[name]), default=None)
        if "svd" in self.method and largest is not None and self.rank > min(shapes[largest]):
            inputs, outputs = shapes[largest]
            yield (
                f"rank: {self.rank} is more than any linear of this backbone can have: the largest, {largest}, maps "
                f"{inputs} numbers to {outputs}, so at most {min(inputs, outputs)}"
            )

    def merge(self, teachers: Sequence[LoraFactors], shapes: Shapes, seed: int) -> LoraFactors:
        """One LoRA that covers what any of them covers; the svd methods give it the rank `rank`.

        Raises CloraError where PEFT cannot merge these teachers in this way.
        """
        import torch

        covered = {module: shape for module, shape in shapes.items() if any(module in t for t in teachers)}
        self._refuse(teachers, covered)
        names = [f"effect_{i}" for i in range(len(teachers))]
        with torch.random.fork_rng(devices=[]):  # PEFT initialises, and dare drops, from the global generator
            model = _loaded(teachers, covered, names)
            torch.manual_seed(seed)
            model.add_weighted_adapter(
                names,
                [self.weight] * len(names),
                "merged",
                self.method,
                svd_rank=self.rank if "svd" in self.method else None,
                density=self.density if "ties" in self.method or "dare" in self.method else None,
            )
        merged = {}
        for module in covered:
            layer = model.model.get_submodule(module)
            a, b = layer.lora_A["merged"].weight, layer.lora_B["merged"].weight  # pyright: ignore
            merged[module] = (a.detach(), b.detach(), float(layer.scaling["merged"]))  # pyright: ignore
        return merged

    def _refuse(self, teachers: Sequence[LoraFactors], shapes: Shapes) -> None:
        """Raise for what PEFT would refuse in words of its own, or fail at."""
        smallest = min((min(shape), module) for module, shape in shapes.items())
        if "svd" in self.method and self.rank > smallest[0]:
            raise CloraError(f"serve.merge.rank {self.rank} is more than {smallest[1]} can have: {smallest[0]}")
        ranks = sorted({len(a) for teacher in teachers for a, _, _ in teacher.values()})
        if self.method == "linear" and len(ranks) > 1:
            raise CloraError(
                f"serve.merge.method linear needs teachers of one rank; these have {ranks}; try svd or cat"
            )


def _loaded(teachers: Sequence[LoraFactors], shapes: Shapes, names: Sequence[str]) -> LoraModel:
    """PEFT's model with every teacher as an adapter of its name."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    configs = {}
    for name, teacher in zip(names, teachers, strict=True):
        ranks = {module: len(a) for module, (a, _, _) in teacher.items()}
        top = max(ranks.values())
        configs[name] = LoraConfig(
            r=top, lora_alpha=top, rank_pattern=ranks, alpha_pattern=ranks, target_modules=list(ranks)
        )
    model = LoraModel(_skeleton(shapes), configs[names[0]], names[0])
    for name in names[1:]:
        model.peft_config[name] = configs[name]
        model.inject_adapter(model.model, name)
    for name, teacher in zip(names, teachers, strict=True):
        for module, (a, b, scale) in teacher.items():
            layer = model.model.get_submodule(module)
            layer.lora_A[name].weight.data.copy_(a)  # pyright: ignore
            layer.lora_B[name].weight.data.copy_(b * scale)  # pyright: ignore
    return model


def _skeleton(shapes: Mapping[str, tuple[int, int]]) -> nn.Module:
    """A module tree that has only the target linears: PEFT merges from A and B alone, the base is not needed."""
    from torch import nn

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

"""One LoRA adapter as one flat tensor, with a view A [r, in], B [out, r] for every linear that it covers.

Flat storage makes everything that happens to a whole adapter one operation: an optimizer step, a moving average, an
all-reduce of gradients, a copy to the device, a file. A module that the adapter does not cover has no view, and the
base's own output stands there unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, TypeAlias

import torch
from attrs import frozen

if TYPE_CHECKING:
    from clora.diffusion.rng import StepRng

#: {module: (A [r, in], B [out, r], scale)}
Factors: TypeAlias = "Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]"
#: (numbers, their type) -> storage for them
Take: TypeAlias = Callable[[int, torch.dtype], torch.Tensor]


@frozen
class Slot:
    """Where one linear's factors lie in the flat tensor."""

    rank: int
    inputs: int
    outputs: int
    scale: float
    offset: int

    @property
    def size(self) -> int:
        """Numbers held: A and B."""
        return self.rank * (self.inputs + self.outputs)

    def views(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A [r, in] and B [out, r] as views of a flat tensor."""
        middle = self.offset + self.rank * self.inputs
        a = flat[self.offset : middle].view(self.rank, self.inputs)
        return a, flat[middle : self.offset + self.size].view(self.outputs, self.rank)


class Adapter:
    """A LoRA adapter: `flat` holds every factor, `factors[module]` are views into it.

    A trainable adapter has leaf views whose gradients are views of `flat_grad`, so that one optimizer over
    `parameter` trains all of them.
    """

    def __init__(self, slots: Mapping[str, Slot], flat: torch.Tensor, *, trainable: bool = False) -> None:
        self.slots = dict(slots)
        self.flat = flat.detach()
        self.parameter = torch.nn.Parameter(self.flat, requires_grad=trainable)
        self.flat_grad = torch.zeros_like(self.flat) if trainable else None
        self.factors: dict[str, tuple[torch.Tensor, torch.Tensor, float]] = {}
        for module, slot in self.slots.items():
            a, b = slot.views(self.flat)
            if self.flat_grad is not None:
                a, b = a.requires_grad_(), b.requires_grad_()
                a.grad, b.grad = slot.views(self.flat_grad)
            self.factors[module] = (a, b, slot.scale)
        if self.flat_grad is not None:
            self.parameter.grad = self.flat_grad

    @property
    def trains(self) -> bool:
        """True where it has gradients."""
        return self.flat_grad is not None

    @property
    def matrices(self) -> list[torch.Tensor]:
        """A [r, in] and B [out, r] of every linear, in order."""
        return [part for a, b, _ in self.factors.values() for part in (a, b)]

    @classmethod
    def fresh(
        cls, shapes: Mapping[str, tuple[int, int]], rank: int, alpha: float, rng: StepRng, *, trainable: bool = True
    ) -> Adapter:
        """A new adapter of one rank on every module of `shapes` {module: (in, out)}: A as PEFT draws it, B zero."""
        slots: dict[str, Slot] = {}
        offset = 0
        for module, (inputs, outputs) in shapes.items():
            slots[module] = Slot(rank, inputs, outputs, alpha / rank, offset)
            offset += slots[module].size
        flat = torch.zeros(offset)
        for module, slot in slots.items():
            a, _ = slot.views(flat)
            bound = 1 / math.sqrt(slot.inputs)  # kaiming_uniform with a = sqrt(5), PEFT's default
            a.uniform_(-bound, bound, generator=rng.torch(module))
        return cls(slots, flat, trainable=trainable)

    @classmethod
    def of(cls, factors: Factors, take: Take = lambda size, dtype: torch.empty(size, dtype=dtype)) -> Adapter:
        """A frozen adapter holding copies of factors, in the narrowest type that holds all of theirs; ranks may differ.

        `take` gives the storage, so that a file's numbers are copied once, to where they are wanted.
        """
        slots: dict[str, Slot] = {}
        offset = 0
        for module, (a, b, scale) in factors.items():
            slots[module] = Slot(a.shape[0], a.shape[1], b.shape[0], scale, offset)
            offset += slots[module].size
        types = [part.dtype for a, b, _ in factors.values() for part in (a, b)]
        flat = take(offset, reduce(torch.promote_types, types) if types else torch.float32)
        for module, (a, b, _) in factors.items():
            into_a, into_b = slots[module].views(flat)
            into_a.copy_(a)
            into_b.copy_(b)
        return cls(slots, flat)

    def copy(self) -> Adapter:
        """A frozen adapter with the same numbers in storage of its own."""
        return Adapter(self.slots, self.flat.clone())

    def to(self, device: torch.device) -> Adapter:
        """The same adapter on a device (itself where it is there already): one copy, whatever its number of modules."""
        if self.flat.device == device:
            return self
        return Adapter(self.slots, self.flat.to(device), trainable=self.trains)

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        if self.flat_grad is not None:
            self.flat_grad.zero_()


def stack(*adapters: Adapter) -> Adapter:
    """The sum of several adapters as one: ranks are laid side by side, so that B A = sum of scale_i B_i A_i."""
    factors: dict[str, tuple[torch.Tensor, torch.Tensor, float]] = {}  # in float32: B takes up the scale
    for module in dict.fromkeys(name for adapter in adapters for name in adapter.factors):
        parts = [adapter.factors[module] for adapter in adapters if module in adapter.factors]
        a = torch.cat([part[0].detach().float() for part in parts])
        b = torch.cat([part[1].detach().float() * part[2] for part in parts], dim=1)
        factors[module] = (a, b, 1.0)
    return Adapter.of(factors)

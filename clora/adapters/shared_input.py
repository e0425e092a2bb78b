"""Linears with one input, such as attention's q, k and v: computed together, though the network calls them in turn.

The first of them to be called computes all; the others' outputs wait until the network asks for them with the very same
tensor. Nothing waits longer than the rows that were set, and whoever is called with another input computes alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from clora.adapters.lora_linear import LoraLinear
    from clora.contracts.loaded_backbone import GroupsLinears

#: by their names in diffusers' blocks and attention modules, in the order in which those call them
SHARED_INPUT = (
    ("proj_mlp", "attn.to_q", "attn.to_k", "attn.to_v"),
    ("to_q", "to_k", "to_v"),
    ("add_q_proj", "add_k_proj", "add_v_proj"),
)


class _Waiting(NamedTuple):
    """Outputs that nobody has asked for yet, and what they were computed from."""

    x: torch.Tensor
    state: tuple[object, ...]
    outputs: dict[LoraLinear, torch.Tensor]


class SharedInput:
    """Linears that the network calls with one input, the first of them first."""

    def __init__(self, kernel: GroupsLinears, linears: Sequence[LoraLinear]) -> None:
        self.kernel = kernel
        # they know this object: held fast in turn, a network that was let go would wait for the garbage collector
        self._linears = [weakref.ref(linear) for linear in linears]
        self.routing = linears[0].routing
        self.last_turn: int | None = None  # the last one in which they are together
        self._waiting: _Waiting | None = None

    @property
    def linears(self) -> list[LoraLinear]:
        """Those of them that there are still."""
        return [linear for each in self._linears if (linear := each()) is not None]

    def output(self, linear: LoraLinear, x: torch.Tensor) -> torch.Tensor | None:
        """What one of them gives for x; None where it has to compute alone."""
        if linear is self._linears[0]():
            return self._together(x)
        if self._waiting is None:
            return None
        if self._waiting.x is not x or self._waiting.state != _state(x):
            self._part()
            return None
        y = self._waiting.outputs.pop(linear, None)
        if not self._waiting.outputs:
            self.forget()
        return y

    def forget(self) -> None:
        """Let go of what waits."""
        self._waiting = None
        self.routing.waiting.discard(self)

    def _together(self, x: torch.Tensor) -> torch.Tensor | None:
        if self._waiting is not None:
            self._part()
        if x.is_inference() or (self.last_turn is not None and self.routing.turn > self.last_turn):
            return None
        linears = self.linears
        tables = [linear.segments(x) for linear in linears]
        if sum(any(a is not None for _, a, _, _ in table) for table in tables) < 2:
            return None
        first, *others = self.kernel.group(
            x,
            [(linear.base.weight, linear.base.bias, table) for linear, table in zip(linears, tables, strict=True)],
        )
        self._waiting = _Waiting(x, _state(x), dict(zip(linears[1:], others, strict=True)))
        self.routing.waiting.add(self)
        return first

    def _part(self) -> None:
        """They have different inputs after all: from the next turn on each computes alone.

        Not at once, since a checkpointed forward that was made together is made again together.
        """
        self.last_turn = self.routing.turn
        self.forget()


def _state(x: torch.Tensor) -> tuple[object, ...]:
    """What else an output depends on: whether x was written into, and what torch was told to do."""
    device = x.device.type
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return x._version, torch.is_grad_enabled(), cast


def shared_inputs(linears: Mapping[str, LoraLinear]) -> Iterator[list[LoraLinear]]:
    """The linears, by dotted name, that share an input: those named in SHARED_INPUT, two or more of a parent.

    Only plain linears of one width and type: a quantised or offloaded one has no weight to give a kernel.
    """
    taken: set[str] = set()
    for names in SHARED_INPUT:
        parents = {target[: -len(name)] for name in names for target in linears if _ends(target, name)}
        for parent in sorted(parents):
            members = [parent + name for name in names if parent + name in linears and parent + name not in taken]
            found = [linears[member] for member in members]
            kinds = {_kind(linear.base) for linear in found}
            if len(found) > 1 and len(kinds) == 1 and None not in kinds:
                taken.update(members)
                yield found


def _ends(target: str, name: str) -> bool:
    return target == name or target.endswith("." + name)


def _kind(base: nn.Module) -> tuple[int, torch.dtype] | None:
    return (base.in_features, base.weight.dtype) if isinstance(base, nn.Linear) else None

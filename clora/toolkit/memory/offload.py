"""Blocks whose weights wait in CPU memory and come to one of two buffers on the device just before they run.

While a block computes from one buffer, the next block's weights are copied into the other on a stream of its own. The
order may be that of a forward pass, of a backward pass or any other: a block that is not there is copied at once, and
only the guess which one comes next is wasted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from attrs import frozen

from clora.toolkit.memory.linear import FrozenLinear
from clora.toolkit.memory.precision import Stored

_ALIGNED = 256  # bytes; the first of every tensor in a buffer


@frozen
class _Place:
    """Where one tensor lies in its block's bytes."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def view(self, buffer: torch.Tensor) -> torch.Tensor:
        """The tensor in a buffer of bytes."""
        size = math.prod(self.shape) * self.dtype.itemsize
        return buffer[self.offset : self.offset + size].view(self.dtype).view(self.shape)


class OffloadedBlocks:
    """The weights of several blocks in CPU memory, and two buffers on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.host: list[torch.Tensor] = []
        self.buffers: list[torch.Tensor] = []
        self.holds: list[int | None] = [None, None]  # the block in each buffer
        self.current: int | None = None
        self.copies = 0  # blocks copied to the device so far
        self.pinned = device.type == "cuda"
        self.side = torch.cuda.Stream(device) if self.pinned else None
        self.arrived = [torch.cuda.Event(), torch.cuda.Event()] if self.pinned else []

    def add(self, linears: Sequence[FrozenLinear]) -> None:
        """Take over the weights of one more block's linears; the blocks come in the order in which they run."""
        index, end = len(self.host), 0
        places: list[dict[str, _Place]] = []
        for linear in linears:
            places.append({})
            for name, tensor in linear.stored().items():
                start = -(-end // _ALIGNED) * _ALIGNED
                places[-1][name] = _Place(start, tuple(tensor.shape), tensor.dtype)
                end = start + tensor.numel() * tensor.element_size()
        meta = self.device.type == "meta"
        host = torch.empty(end, dtype=torch.uint8, pin_memory=self.pinned, device="meta" if meta else "cpu")
        for linear, here in zip(linears, places, strict=True):
            for name, tensor in linear.stored().items():
                here[name].view(host).copy_(tensor)
            linear.move_out(_Source(self, index, here))
        self.host.append(host)
        largest = max(len(block) for block in self.host)
        if not self.buffers or len(self.buffers[0]) < largest:
            self.buffers = [torch.empty(largest, dtype=torch.uint8, device=self.device) for _ in range(2)]
            self.holds, self.current = [None, None], None

    def buffer(self, index: int, *, grad: bool) -> torch.Tensor:
        """The buffer with a block's bytes; the block that probably follows is on its way to the other one."""
        if index != self.current:
            if index not in self.holds:
                self._copy(index, 0 if self.current is None else 1 - self.holds.index(self.current))
            slot = self.holds.index(index)
            if self.pinned:
                torch.cuda.current_stream(self.device).wait_event(self.arrived[slot])
            following = self._following(index, grad)
            self.current = index
            if following not in self.holds:
                self._copy(following, 1 - slot)
        return self.buffers[self.holds.index(index)]

    def _following(self, index: int, grad: bool) -> int:
        """The next block in the direction of travel; at the end a backward pass turns round, sampling starts anew."""
        last = len(self.host) - 1
        backwards = self.current is not None and index < self.current and not (index == 0 and self.current == last > 1)
        following = index - 1 if backwards else index + 1
        if 0 <= following <= last:
            return following
        if backwards:
            return min(1, last)
        return max(last - 1, 0) if grad else 0

    def _copy(self, index: int, slot: int) -> None:
        into = self.buffers[slot][: len(self.host[index])]
        self.holds[slot] = index
        self.copies += 1
        if self.side is None:
            into.copy_(self.host[index])
            return
        self.side.wait_stream(torch.cuda.current_stream(self.device))  # whoever still reads that buffer
        with torch.cuda.stream(self.side):
            into.copy_(self.host[index], non_blocking=True)
            self.arrived[slot].record(self.side)


@frozen(eq=False)
class _Source:
    """Where one linear's tensors are among the offloaded blocks."""

    blocks: OffloadedBlocks
    index: int
    places: dict[str, _Place]

    def stored(self, *, grad: bool) -> Stored:
        """The tensors on the device, valid until another block's are asked for."""
        return self._views(self.blocks.buffer(self.index, grad=grad))

    def at_rest(self) -> Stored:
        """The tensors where they wait, whatever is on the device."""
        return self._views(self.blocks.host[self.index])

    def _views(self, block: torch.Tensor) -> Stored:
        return {name: place.view(block) for name, place in self.places.items()}

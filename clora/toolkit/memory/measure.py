"""What a forward and a backward pass take in memory and arithmetic, found by running them on tensors without numbers.

The network is built on torch's meta device: its real code runs at the real sizes, and only shapes and types are worked
out. Attention is counted as the kernels of GPUs do it, which keep queries, keys, values, output and one number a row.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class LiveBytes(TorchDispatchMode):
    """Within it, the bytes of storages that operations made and that are still alive: now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in _tensors((args, kwargs)):  # made before: not this pass's
            self._note(given, 0)
        result = func(*args, **(kwargs or {}))
        for made in _tensors(result):
            self._note(made, made.untyped_storage().nbytes())
        return result

    def _note(self, tensor: torch.Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class _Attention(torch.autograd.Function):
    """Attention's shapes: what a fused kernel reads, writes and keeps."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


@contextmanager
def _fused_attention() -> Iterator[list[int]]:
    """Within it, attention makes no matrix of scores; the list gets each call's arithmetic.

    torch's own function is replaced for the time, since a mode would not reach the second forward of a checkpointed
    block, which the backward pass runs.
    """
    calls: list[int] = []
    real = functional.scaled_dot_product_attention

    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        calls.append(2 * math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))
        return _Attention.apply(query, key, value)  # pyright: ignore[reportReturnType]

    functional.scaled_dot_product_attention = fused
    try:
        yield calls
    finally:
        functional.scaled_dot_product_attention = real


@frozen
class Measured:
    """Bytes and arithmetic of one row."""

    held: int  # what waits for the backward pass once the forward pass is done
    backward: int  # the most that the backward pass, or the forward pass before it, takes beyond that
    sampling: int  # the most that a forward pass without gradient takes
    flops: int  # multiplications and additions of a forward pass


def _addmm_flops(into: Any, a: Any, b: Any, *rest: Any, **named: Any) -> int:
    """The arithmetic of `into += a b`, which torch's counter does not know, from the three shapes."""
    return 2 * a[0] * a[1] * b[1]


def measure(forward: Callable[[], torch.Tensor]) -> Measured:
    """What `forward` takes, a network's answer to one row on the meta device whose adapters can be trained."""
    with torch.no_grad(), LiveBytes() as live, _fused_attention():
        forward()
        sampling = live.peak
    counting = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_flops})
    with torch.no_grad(), counting as counter, _fused_attention() as attention:
        forward()
    with LiveBytes() as live, _fused_attention():
        loss = forward().sum()  # the answer itself is kept by nobody
        held = live.now
        torch.autograd.backward(loss)
        peak = live.peak
    return Measured(held, peak - held, sampling, counter.get_total_flops() + sum(attention))

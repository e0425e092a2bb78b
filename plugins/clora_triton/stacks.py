"""Several linears of one input as a table: which adapters of which linears each row segment stacks into one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from clora_triton.call import Call, Grads, Needs


class Part(NamedTuple):
    """One adapter within a stack."""

    linear: int
    adapter: int  # in that linear's table
    start: int  # the first of its columns among the shrunk activations
    stop: int


class Group(NamedTuple):
    """Linears with one x and the same rows; the factors A that a segment reads x with stand in one stack."""

    calls: Sequence[Call]
    stacks: Sequence[tuple[Part, ...]]
    which: Sequence[int]  # the stack of every segment, or -1
    columns: int = 0  # of the shrunk activations, where a linear has the same ones in every stack

    @property
    def x(self) -> torch.Tensor:
        """The input [B, ..., in] of all."""
        return self.calls[0].x

    @property
    def rows(self) -> Sequence[int]:
        """The rows of every segment."""
        return self.calls[0].rows

    @property
    def rank(self) -> int:
        """How many columns the shrunk activations of all linears have."""
        return self.columns or max((parts[-1].stop for parts in self.stacks), default=0)

    @property
    def full(self) -> bool:
        """True where every row fills all columns of the shrunk activations."""
        widths = {0 if i < 0 else sum(part.stop - part.start for part in self.stacks[i]) for i in self.which}
        return widths == {self.rank}

    def segments(self) -> Iterator[tuple[int, slice, slice]]:
        """(stack, its rows of x, the same as rows of a matrix) of every segment that has both a stack and rows."""
        each = self.calls[0].vectors // max(self.x.shape[0], 1)
        start = 0
        for count, stack in zip(self.rows, self.which, strict=True):
            if stack >= 0 and count:
                yield stack, slice(start, start + count), slice(start * each, (start + count) * each)
            start += count

    def factor(self, parts: Sequence[Part], dtype: torch.dtype, first: int = 0) -> torch.Tensor:
        """The factors A of neighbouring parts as one [columns from `first` on, in], zero in columns of no adapter."""
        factors = [self.calls[part.linear].a[part.adapter].to(dtype) for part in parts]
        if parts[-1].stop - first == sum(len(factor) for factor in factors):
            return factors[0] if len(factors) == 1 else torch.cat(factors)
        stacked = self.x.new_zeros(parts[-1].stop - first, self.x.shape[-1], dtype=dtype)
        for part, factor in zip(parts, factors, strict=True):
            stacked[part.start - first : part.stop - first] = factor
        return stacked

    def tensors(self) -> list[torch.Tensor | None]:
        """x, then weight, bias, every A and every B of each linear."""
        return [self.x, *(tensor for call in self.calls for tensor in (call.weight, call.bias, *call.a, *call.b))]

    def bare(self) -> Group:
        """The same table without tensors, which only autograd may keep."""
        nothing: Any = None
        calls = [
            call._replace(x=nothing, weight=nothing, bias=nothing, a=[nothing] * len(call.a), b=[nothing] * len(call.b))
            for call in self.calls
        ]
        return self._replace(calls=calls)

    def filled(self, tensors: Sequence[Any]) -> Group:
        """A bare table with tensors again, ordered as `tensors` gives them."""
        return self._replace(
            calls=[
                call._replace(x=tensors[0], weight=weight, bias=bias, a=a, b=b)
                for call, (weight, bias, a, b) in zip(self.calls, self.split(tensors), strict=True)
            ]
        )

    def split(self, values: Sequence[Any]) -> Iterator[tuple[Any, Any, Sequence[Any], Sequence[Any]]]:
        """(weight's, bias's, every A's, every B's) of each linear, from one value for each of `tensors`."""
        at = 1
        for call in self.calls:
            half = len(call.a)
            yield values[at], values[at + 1], values[at + 2 : at + 2 + half], values[at + 2 + half : at + 2 + 2 * half]
            at += 2 + 2 * half


def group_of(calls: Sequence[Call], *, aligned: bool) -> Group:
    """The table of calls with one x and the same rows.

    `aligned` gives a linear the same columns in every stack, as a kernel needs that reads one linear's columns of all
    rows; else each stack's columns are side by side and none is left empty.
    """
    offsets = [sum(call.rank for call in calls[:i]) for i in range(len(calls))]
    stacks: dict[tuple[int, ...], int] = {}
    parts: list[tuple[Part, ...]] = []
    which: list[int] = []
    for key in zip(*(call.which for call in calls), strict=True):
        if all(adapter < 0 for adapter in key):
            which.append(-1)
            continue
        if key not in stacks:
            stacks[key] = len(parts)
            parts.append(_parts(calls, key, offsets if aligned else None))
        which.append(stacks[key])
    return Group(calls, parts, which, offsets[-1] + calls[-1].rank if aligned else 0)


def _parts(calls: Sequence[Call], key: Sequence[int], offsets: Sequence[int] | None) -> tuple[Part, ...]:
    found: list[Part] = []
    for linear, adapter in enumerate(key):
        if adapter >= 0:
            at = offsets[linear] if offsets is not None else found[-1].stop if found else 0
            found.append(Part(linear, adapter, at, at + calls[linear].a[adapter].shape[0]))
    return tuple(found)


def neighbours(parts: Sequence[Part], chosen: Callable[[Part], bool]) -> list[list[Part]]:
    """The chosen parts in lists whose columns are side by side, so that one product serves each list."""
    found: list[list[Part]] = []
    for part in parts:
        if chosen(part):
            if found and found[-1][-1].stop == part.start:
                found[-1].append(part)
            else:
                found.append([part])
    return found


class Together(Protocol):
    """One way to compute a group; `s` [vectors, rank] holds the shrunk activations of all its linears."""

    def forward(self, group: Group, keep: bool) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """(y [B, ..., out] of each linear, s); s may be None where a backward pass can make it again."""
        ...

    def backward(
        self, group: Group, dys: Sequence[torch.Tensor | None], s: torch.Tensor | None, needs: Sequence[Needs]
    ) -> tuple[torch.Tensor | None, list[Grads]]:
        """dx, and the gradients of each linear's own tensors; dL/dy is None where nobody uses that y."""
        ...

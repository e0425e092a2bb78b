"""Seconds and bytes of one forward and backward: providers take turns, and what they read has left the caches."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from attrs import frozen
from kernel_providers import Answer, Provider

COLD = {"cpu": 48 << 20, "cuda": 256 << 20}  # bytes: more than the last cache holds
PARTS = ("forward", "backward", "both")


@contextmanager
def _silent() -> Iterator[None]:
    """Within it nothing reaches stderr, to which torch's profiler writes a line whenever it starts or stops."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@frozen
class Timing:
    """Median and the 20 % and 80 % quantiles, in milliseconds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Timing:
        """Of measurements in milliseconds."""
        low, *_, high = statistics.quantiles(values, n=5, method="inclusive")
        return cls(statistics.median(values), low, high)


class Bench:
    """Inputs of one case and the clock of its device.

    On a GPU the caches are overwritten before each forward and each backward. On a CPU that would also empty them of
    the interpreter; there inputs rotate, and a backward is that of a forward which lies half a round back.
    """

    def __init__(self, make: Callable[[], tuple[torch.Tensor, torch.Tensor]], clock: Callable[[], float]) -> None:
        self.clock = clock  # seconds; on a GPU its own events are used
        x, dy = make()
        self.device = x.device.type
        size = x.numel() * x.element_size() + dy.numel() * dy.element_size()
        more = 0 if x.is_cuda else math.ceil(COLD["cpu"] / size)
        self.inputs = [(x, dy), *(make() for _ in range(more))]
        for each, _ in self.inputs:
            each.requires_grad_()
        self.turn = 0
        self.waiting: dict[str, deque[Callable[[], object]]] = {}
        self.flush = torch.empty(COLD["cuda"] if x.is_cuda else 0, dtype=torch.int8, device=x.device)

    def once(self, provider: Provider) -> tuple[float, float]:
        """Milliseconds of a forward and of a backward."""
        x, dy = self.inputs[self.turn % len(self.inputs)]
        self.turn += 1
        made: list[Answer] = []
        forward = self._timed(lambda: made.append(provider.forward(x)))
        queue = self.waiting.setdefault(provider.name, deque())
        queue.append(lambda: _gradients(made[0], x, provider, dy))
        return forward, self._timed(queue.popleft()) if len(queue) > len(self.inputs) // 2 else 0.0

    def warm(self, provider: Provider) -> None:
        """Compile and allocate what the first calls do, and make the forwards whose backwards come first."""
        while self.once(provider)[1] == 0:
            pass
        self.once(provider)

    def _timed(self, work: Callable[[], object]) -> float:
        self.flush.zero_()
        if self.device == "cpu":
            started = self.clock()
            work()
            return 1000 * (self.clock() - started)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def peak(self, provider: Provider) -> int:
        """The most bytes that a forward and its backward hold at once, beside what was there before."""
        if self.device == "cpu":
            return self._peak_on_cpu(provider)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.once(provider)
        return torch.cuda.max_memory_allocated() - before

    def _peak_on_cpu(self, provider: Provider) -> int:
        from torch.profiler import ProfilerActivity, profile

        x, dy = self.inputs[0]
        with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            _gradients(provider.forward(x), x, provider, dy)
        held = most = 0
        for event in cast(Any, profiled.profiler).kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        return most

    def measure(
        self, providers: Sequence[Provider], seconds: float, at_least: int = 7, at_most: int = 500
    ) -> Mapping[str, Mapping[str, Timing]]:
        """Each provider's timings by part; rounds over all providers, so that a machine that drifts slows all alike."""
        found: dict[str, list[tuple[float, float]]] = {each.name: [] for each in providers}
        for each in providers:
            self.warm(each)
        stop = time.perf_counter() + seconds
        for turn in range(at_most):
            shift = turn % len(providers)  # nobody always follows the same one
            for each in (*providers[shift:], *providers[:shift]):
                found[each.name].append(self.once(each))
            if turn + 1 >= at_least and time.perf_counter() > stop:
                break
        self.waiting.clear()
        return {name: _by_part(times) for name, times in found.items()}


def _gradients(y: Answer, x: torch.Tensor, provider: Provider, dy: torch.Tensor) -> object:
    """Those of x and of what learns; a group's outputs have one dy behind the other."""
    dys = dy if isinstance(y, torch.Tensor) else dy.unbind()
    return torch.autograd.grad(y, [x, *provider.parameters], dys)


def _by_part(times: Sequence[tuple[float, float]]) -> dict[str, Timing]:
    forward, backward = zip(*times, strict=True)
    both = [sum(pair) for pair in times]
    return {part: Timing.of(values) for part, values in zip(PARTS, (forward, backward, both), strict=True)}

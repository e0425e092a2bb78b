"""Seconds and bytes of one forward and backward: providers take turns, caches are emptied before every part."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import frozen
from kernel_providers import Provider

FLUSH = {"cpu": 48 << 20, "cuda": 256 << 20}  # bytes written between parts: more than the last cache holds
PARTS = ("forward", "backward", "both")


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
    """Inputs of one case and the clock of its device."""

    def __init__(self, x: torch.Tensor, dy: torch.Tensor, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock  # seconds; on a GPU its own events are used
        self.x = x.requires_grad_()
        self.dy = dy
        self.device = x.device.type
        self.flush = torch.empty(FLUSH[self.device], dtype=torch.int8, device=x.device)

    def once(self, provider: Provider) -> tuple[float, float]:
        """Milliseconds of a forward and of its backward, each with cold caches."""
        wanted = [self.x, *provider.parameters]
        made: list[torch.Tensor] = []
        forward = self._timed(lambda: made.append(provider.forward(self.x)))
        return forward, self._timed(lambda: torch.autograd.grad(made[0], wanted, self.dy))

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

        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            torch.autograd.grad(provider.forward(self.x), [self.x, *provider.parameters], self.dy)
        held = most = 0
        assert profiled.profiler is not None
        for event in profiled.profiler.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        return most

    def measure(
        self, providers: Sequence[Provider], seconds: float, at_least: int = 7, at_most: int = 200
    ) -> Mapping[str, Mapping[str, Timing]]:
        """Each provider's timings by part; rounds over all providers, so that a machine that drifts slows all alike."""
        found: dict[str, list[tuple[float, float]]] = {each.name: [] for each in providers}
        for each in providers:
            self.once(each)
            self.once(each)
        stop = time.perf_counter() + seconds
        for turn in range(at_most):
            shift = turn % len(providers)  # nobody always follows the same one
            for each in (*providers[shift:], *providers[:shift]):
                found[each.name].append(self.once(each))
            if turn + 1 >= at_least and time.perf_counter() > stop:
                break
        return {name: _by_part(times) for name, times in found.items()}


def _by_part(times: Sequence[tuple[float, float]]) -> dict[str, Timing]:
    forward, backward = zip(*times, strict=True)
    both = [sum(pair) for pair in times]
    return {part: Timing.of(values) for part, values in zip(PARTS, (forward, backward, both), strict=True)}

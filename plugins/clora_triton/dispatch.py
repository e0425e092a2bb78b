"""Which implementation computes a call: a rule on a CPU, a measurement on a GPU, made once and kept on disk.

The CPU's rule (`merged.merges`) counts work and measures nothing, so that a run which is resumed has the same bits.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from clora_triton.call import Call, Implementation, Needs
from clora_triton.candidates import CANDIDATES, usable
from clora_triton.choices import Choices, cache_folder
from clora_triton.installed import has_triton

#: seconds that one pass of a candidate takes on a call
Timer = Callable[[Implementation, Call, bool], float]
KERNELS = ("auto", "triton", *CANDIDATES)


def implementation(call: Call, *, grad: bool, kernel: str = "auto") -> Implementation:
    """What computes this call: a candidate by its name, the quickest of Triton's, or the quickest of all ("auto").

    Raises ValueError for a name that there is not.
    """
    if kernel in CANDIDATES:
        return CANDIDATES[kernel]
    if kernel not in KERNELS:
        raise ValueError(f"lora_linear: kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}")
    if call.x.device.type != "cuda":
        return CANDIDATES["addmm" if kernel == "auto" else "parts"]
    return _dispatcher(call.x.device).choose(call, grad, kernel)


class Dispatcher:
    """The quickest candidate of every kind of call on one device."""

    def __init__(self, choices: Choices, timer: Timer) -> None:
        self.choices = choices
        self.timer = timer

    def choose(self, call: Call, grad: bool, kernel: str) -> Implementation:
        """The candidate that was quickest when such a call was first met; the first usable one where none may run."""
        names = usable(call, grad, kernel)
        if not names:
            raise ValueError("lora_linear: kernel triton: expected the package triton, which is not installed here")
        if len(names) == 1:
            return CANDIDATES[names[0]]
        key = f"{kernel} {key_of(call, grad)}"
        chosen = self.choices.get(key, names)
        if chosen is None:
            if call.x.is_cuda and torch.cuda.is_current_stream_capturing():
                return CANDIDATES[names[0]]  # nothing can be timed while a graph is recorded
            seconds = self.measure(call, grad, names)
            chosen = min(seconds, key=lambda name: seconds[name]) if seconds else names[0]
            self.choices.put(key, chosen, seconds)
        return CANDIDATES[chosen]

    def measure(self, call: Call, grad: bool, names: Sequence[str]) -> dict[str, float]:
        """Seconds of each candidate; one that fails on this device is left out."""
        seconds: dict[str, float] = {}
        like = _like(call)
        for name in names:
            try:
                seconds[name] = self.timer(CANDIDATES[name], like, grad)
            except Exception as error:  # a compiler that does not know the device raises anything
                self.choices.say(f"{name} does not run here and is left out: {type(error).__name__}: {error}")
        return seconds


def key_of(call: Call, grad: bool) -> str:
    """What decides the time of a call; rows are counted in steps of a quarter octave."""
    octave = round(4 * math.log2(max(call.vectors, 1)))
    shape = f"{call.weight.shape[1]}x{call.weight.shape[0]} rank {call.rank} rows 2^{octave / 4:g}"
    kinds = f"{str(call.x.dtype)[6:]}/{str(call.a[0].dtype)[6:]}"
    segments = min(sum(count > 0 for count in call.rows), 4)
    dropout = "" if call.dropout is None else " dropout"
    return f"{shape} segments {segments} {kinds} {'grad' if grad else 'nograd'}{dropout}"


def seconds_of(implementation: Implementation, call: Call, grad: bool, repeats: int = 10) -> float:
    """Median seconds of one forward (and backward) on a GPU, after three that compile and warm up."""
    needs = Needs(True, False, False, [grad] * len(call.a), [grad] * len(call.b))
    y, _ = implementation.forward(call, keep=grad)
    times: list[float] = []
    for turn in range(repeats + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        _, s = implementation.forward(call, keep=grad)
        if grad:
            implementation.backward(call, y, s, needs)
        end.record()
        end.synchronize()
        if turn >= 3:
            times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def _like(call: Call) -> Call:
    """The same call without its graph; candidates only read its tensors."""
    x, weight = call.x.detach(), call.weight.detach()
    a, b = [a.detach() for a in call.a], [b.detach() for b in call.b]
    return call._replace(x=x, weight=weight, a=a, b=b)


@cache
def _dispatcher(device: torch.device) -> Dispatcher:
    """The dispatcher of a GPU: its choices hold for this GPU's name, this torch and this triton."""
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "none"
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    made_by = f"{torch.cuda.get_device_name(device)} {capability} torch {torch.__version__} triton {triton}"
    if has_triton():  # ways to cut its kernels' work that were measured before
        from clora_triton.tuning import kept, load

        load(device, kept(device))
    return Dispatcher(Choices(cache_folder(), made_by), seconds_of)

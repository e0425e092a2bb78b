"""Seconds that training waits for the next teacher: loaded ahead, loaded at the switch, or copied tensor by tensor.

    python benchmarks/teacher_switch.py [--layers 60] [--rank 128] [--step-seconds 1] [--switches 8] [--device cuda]

The teachers are random LoRAs in bfloat16 for the linears of Qwen-Image's blocks (60 of them with 14 linears: 2.36 GB at
rank 128). The step that loading may hide behind is a plain product of two float32 matrices of 1024 x 1024, repeated as
often as takes about --step-seconds; `no switch` is that step alone, and what loading costs it beside the stall is the
difference. Every switch goes to a teacher that is not on the device. The ways take turns, so that a machine whose speed
drifts slows all of them alike; medians. Once with the files in the page cache, once (`cold`) dropped before every step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from attrs import define, field
from machine import write_rows
from random_qwen import Size
from safetensors.torch import load_file, save_file
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Factors
from clora.adapters.teacher_prefetch import Source
from clora.adapters.teacher_slots import TeacherSlots
from clora.lora_io.reader import read_lora

ROOT = Path(__file__).parents[1]


def write_teachers(folder: Path, shapes: Mapping[str, tuple[int, int]], rank: int, count: int) -> dict[str, Source]:
    """Random LoRA files."""
    sources = {}
    for number in range(count):
        tensors = {}
        for module, (inputs, outputs) in shapes.items():
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, inputs).bfloat16()
            tensors[f"{module}.lora_B.weight"] = torch.randn(outputs, rank).bfloat16()
        path = folder / f"teacher_{number}.safetensors"
        save_file(tensors, path)
        sources[path.stem] = Source(path)
    return sources


def bare_network(shapes: Mapping[str, tuple[int, int]]) -> AdaptedNetwork:
    """The linears without weights: nothing here computes with the base."""
    root = nn.Module()
    for target, (inputs, outputs) in shapes.items():
        owner = root
        *path, leaf = target.split(".")
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(leaf, nn.Linear(inputs, outputs, device="meta"))
    return AdaptedNetwork(root, tuple(shapes))


@define
class Slots:
    """Two slots: the teacher in use, and room for the next."""

    sources: Mapping[str, Source]
    shapes: Mapping[str, tuple[int, int]]
    device: torch.device
    look_ahead: bool
    slots: TeacherSlots = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.slots = TeacherSlots(bare_network(self.shapes), self.sources, self.read, self.device, 2)

    def read(self, source: Source) -> Factors:
        """As `ModelSession` reads them."""
        deltas = read_lora(source.path, self.shapes).deltas
        return {name: (delta.a, delta.b, delta.scale) for name, delta in deltas.items()}

    def begin(self, now: str, after: str) -> None:
        """A step with teacher `now` begins, and `after` is known to come."""
        if self.look_ahead:
            self.slots.ahead([now, after])

    def switch(self, to: str) -> float:
        """Seconds waited for a teacher."""
        self.slots.take_stall()
        self.slots.need([to])
        return self.slots.take_stall()


class NoSwitch:
    """One teacher for good."""

    def begin(self, now: str, after: str) -> None:
        """Nothing is loaded."""

    def switch(self, to: str) -> float:
        """No wait."""
        return 0.0


@define
class TensorByTensor:
    """Parameters that stand on the device, and one copy into each at the switch."""

    sources: Mapping[str, Source]
    device: torch.device
    parameters: dict[str, torch.Tensor] = field(factory=dict)

    def begin(self, now: str, after: str) -> None:
        """Nothing is known in advance."""

    def switch(self, to: str) -> float:
        """Seconds waited for a teacher."""
        started = time.perf_counter()
        for name, tensor in load_file(self.sources[to].path).items():
            if name not in self.parameters:
                self.parameters[name] = torch.empty_like(tensor, device=self.device)
            self.parameters[name].copy_(tensor)
        synchronise(self.device)
        return time.perf_counter() - started


#: the ways to come to the next teacher
Way: TypeAlias = Slots | TensorByTensor | NoSwitch


def synchronise(device: torch.device) -> None:
    """Wait for a GPU's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def products(device: torch.device, times: int) -> None:
    """The step: plain matrix products."""
    x = torch.ones(1024, 1024, device=device)
    for _ in range(times):
        x = x @ x / 1024
    synchronise(device)


def times_for(step: Callable[[int], None], seconds: float) -> int:
    """How many products take so long when nothing else runs."""
    step(4)
    started = time.perf_counter()
    step(16)
    return max(1, round(16 * seconds / (time.perf_counter() - started)))


def forget(sources: Mapping[str, Source]) -> None:
    """Drop the files from the page cache."""
    for source in sources.values():
        with source.path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Rows for each way, with warm and with cold files."""
    device = torch.device(args.device)
    shapes = Size(args.layers).shapes()
    sources = write_teachers(folder, shapes, args.rank, 4)
    ways: dict[str, Way] = {
        "no switch": NoSwitch(),
        "loaded ahead": Slots(sources, shapes, device, look_ahead=True),
        "loaded at the switch": Slots(sources, shapes, device, look_ahead=False),
        "tensor by tensor": TensorByTensor(sources, device),
    }
    step = partial(products, device)
    times = times_for(step, args.step_seconds)
    size = next(iter(sources.values())).path.stat().st_size
    about = {"layers": args.layers, "rank": args.rank, "megabytes": round(size / 1e6, 1)}
    rows: list[dict[str, object]] = []
    for cold in (False, True):
        measured = take_turns(ways, sources, lambda: step(times), args.switches, cold=cold)
        for way, (stalls, steps) in measured.items():
            found = {
                "median_stall_seconds": round(statistics.median(stalls), 4),
                "worst_stall_seconds": round(max(stalls), 4),
                "median_step_seconds": round(statistics.median(steps), 3),
                "switches": args.switches,
            }
            rows.append({"way": way, **about, "files": "cold" if cold else "in the page cache", **found})
            print(rows[-1], flush=True)
    return rows


def take_turns(
    ways: Mapping[str, Way],
    sources: Mapping[str, Source],
    step: Callable[[], None],
    switches: int,
    *,
    cold: bool,
) -> dict[str, tuple[list[float], list[float]]]:
    """{way: (seconds waited at each switch, seconds of each whole step)}."""
    names = list(sources)
    measured: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
    for number in range(switches + 2):
        now, after = names[number % 4], names[(number + 1) % 4]
        for way, bank in ways.items():
            if cold:
                forget(sources)
            started = time.perf_counter()
            stall = bank.switch(now)
            bank.begin(now, after)
            step()
            if number > 1:  # the first fill the slots, and nobody could know of them
                measured[way][0].append(stall)
                measured[way][1].append(time.perf_counter() - started)
            if isinstance(bank, Slots):
                bank.slots.loader.rest()  # what is still being read must not slow the next way's turn
    return measured


def main() -> None:
    """Measure and write results/teacher_switch.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--step-seconds", type=float, default=1.0)
    parser.add_argument("--switches", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where the four files are written (default: a temporary folder)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/teacher_switch.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = measure(args, Path(folder))
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()

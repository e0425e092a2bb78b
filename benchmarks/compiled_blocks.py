"""Seconds of one training cycle with a Qwen-Image transformer's blocks compiled and not, and what that takes.

    python benchmarks/compiled_blocks.py [--layers 60 --heads 24 --side 1024 --weights fp8 --checkpointing ...]

One network with random weights, full size or scaled down, packed forwards (benchmarks/full_size.py). The two ways take
turns and run the same updates, so that a machine whose speed drifts slows both alike, and the same is drawn for both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from full_size import ROOT, WARM, cycle_of
from machine import write_rows
from torch._dynamo.utils import counters

from clora.diffusion.rng import StepRng
from clora.toolkit.memory.compiling import compile_blocks
from clora.training.trainer import Trainer


def pieces() -> int:
    """How many pieces torch.compile has made so far."""
    return counters["stats"]["unique_graphs"]


def seconds(trainer: Trainer, update: int, device: torch.device) -> float:
    """What one cycle takes by the clock."""
    started = time.perf_counter()
    trainer.cycle(update, StepRng(0))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measured(args: argparse.Namespace) -> list[dict[str, object]]:
    """A row without compiling and one with it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = cycle_of(args, device)
    blocks = list(trainer.evaluator.adapted.network.get_submodule("transformer_blocks").children())
    kinds = {"off": type(blocks[0])}
    compile_blocks(blocks)
    kinds["on"] = type(blocks[0])
    first, taken = dict.fromkeys(kinds, 0.0), {way: [] for way in kinds}
    made = 0
    for update in range(WARM + args.cycles):
        for way, kind in kinds.items():
            for block in blocks:
                block.__class__ = kind
            took = seconds(trainer, update, device)
            if update < WARM:
                first[way] += took
            else:
                taken[way].append(took)
        made = pieces() if update < WARM else made
    keys = ("layers", "heads", "side", "rank", "weights", "checkpointing", "offload", "schedule", "cycles")
    return [
        {
            "compile": way,
            **{key: getattr(args, key) for key in keys},
            "median_seconds": round(statistics.median(taken[way]), 3),
            "least_seconds": round(min(taken[way]), 3),
            f"first_{WARM}_cycles_seconds": round(first[way], 1),
            "pieces_compiled": made if way == "on" else 0,
            "pieces_compiled_later": pieces() - made if way == "on" else 0,
        }
        for way in kinds
    ]


def main() -> None:
    """Write results/compiled_blocks.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 60), ("heads", 24), ("side", 1024), ("rank", 128), ("cycles", 8), ("offload", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--weights", default="bf16", choices=("fp32", "bf16", "fp8", "int8", "nf4"))
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--schedule", default="independent", choices=("independent", "shared"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/compiled_blocks.csv")
    args = parser.parse_args()
    args.variant = "packed"
    rows = measured(args)
    for row in rows:
        print(row)
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()

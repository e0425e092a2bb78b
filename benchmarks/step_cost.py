"""Seconds of one training cycle: rollout schedules, forwards packed or one by one, kernels off and on.

    python benchmarks/step_cost.py                                       # the emoji model
    python benchmarks/step_cost.py --model qwen                          # one Qwen-Image block at full width
    python benchmarks/step_cost.py --model qwen --device cuda            # the same at 1024x1024 in bfloat16

The ways to run it take turns (A B C D A B C D ...), so that a machine whose speed drifts slows all of them alike;
medians. "off" is what a recipe without `kernels:` computes with, "on" is `kernels: {use: auto}`; one model, one student
and one critic serve all. Seconds are the clock's; processor seconds leave out what other programs took, so on a CPU the
speedup is that of these. The block has random weights, and its pictures and words are random numbers.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from machine import write_rows
from random_qwen import Size
from step_models import KERNELS, ROOT, Spent, Timed, emoji, qwen

SCHEDULES = ("independent", "shared")
#: schedule, packed, kernels
Way: TypeAlias = tuple[str, bool, str]


def take_turns(timed: Timed, cycles: int) -> dict[Way, list[Spent]]:
    """What each way of running the same cycles took.

    A first cycle warms caches up; on a GPU all are run once before, as a shape's quickest kernel is measured when the
    shape first comes.
    """
    spent: dict[Way, list[Spent]] = {}
    before = range(cycles + 1) if timed.device.type == "cuda" else range(1)
    for update, counts in (*((update, False) for update in before), *((u, True) for u in range(1, cycles + 1))):
        for schedule, pack in itertools.product(timed.cycles, (True, False)):
            for kernel in KERNELS if update % 2 else reversed(KERNELS):
                took = timed.run(update, schedule, pack, kernel)
                if counts:
                    spent.setdefault((schedule, pack, kernel), []).append(took)
    return spent


def rows_of(timed: Timed, recipe: str, spent: dict[Way, list[Spent]]) -> list[dict[str, object]]:
    """A row for every way."""

    def work(each: Spent) -> float:
        return each.seconds if timed.device.type == "cuda" else each.processor

    rows: list[dict[str, object]] = []
    for schedule, pack, kernel in itertools.product(timed.cycles, (True, False), KERNELS):
        own = spent[schedule, pack, kernel]
        pairs = zip(spent[schedule, pack, "off"], own, strict=True)
        rows.append(
            {
                "model": timed.model,
                "recipe": recipe,
                "schedule": schedule,
                "pack": pack,
                "kernels": kernel,
                "rank": timed.rank,
                "latents": timed.latents,
                "batch": timed.batch,
                "forward_equivalents": round(statistics.mean(each.forwards for each in own) / timed.batch, 2),
                "median_seconds": round(statistics.median(each.seconds for each in own), 4),
                "median_processor_seconds": round(statistics.median(each.processor for each in own), 4),
                # of two cycles of one step, which ran one right after the other
                "median_speedup": round(statistics.median(work(off) / work(on) for off, on in pairs), 3),
                "milliseconds_per_row_forward": round(_per_forward(own), 3),
                "cycles": len(own),
            }
        )
    return rows


def _per_forward(spent: Sequence[Spent]) -> float:
    return 1000 * statistics.median(each.seconds / each.forwards for each in spent)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", type=Path, default=ROOT / "recipes/collection.yaml")
    parser.add_argument("--model", choices=("emoji", "qwen"), default="emoji")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cycles", type=int, help="default: 8; 3 for blocks on a CPU")
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, help="default: both; one for blocks on a CPU")
    parser.add_argument("--threads", type=int, help="on the CPU")
    parser.add_argument("--out", type=Path, help="default: results/step_cost.csv, or step_cost_qwen.csv")
    blocks = parser.add_argument_group("blocks of Qwen-Image")
    for name, default in (("layers", 1), ("heads", 24), ("rank", 128)):
        blocks.add_argument(f"--{name}", type=int, default=default)
    blocks.add_argument("--tokens", type=int, help="of a picture's side (16 pixels each); CPU: 16, GPU: 64")
    blocks.add_argument("--words", type=int, help="tokens of the prompt; CPU: 64, GPU: 300")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    slow = (args.model, args.device) == ("qwen", "cpu")
    cycles, schedules = args.cycles or (3 if slow else 8), args.schedules or SCHEDULES[: 1 if slow else 2]
    if args.model == "emoji":
        timed = emoji(args.recipe, schedules, args.device)
    else:
        usual = (16, 64) if args.device == "cpu" else (64, 300)
        picture = (args.tokens or usual[0], args.words or usual[1])
        timed = qwen(args.recipe, schedules, Size(args.layers, args.heads), args.rank, picture, args.device)
    rows = rows_of(timed, args.recipe.stem, take_turns(timed, cycles))
    for row in rows:
        print(row)
    name = "step_cost.csv" if args.model == "emoji" else "step_cost_qwen.csv"
    write_rows(args.out or ROOT / "benchmarks/results" / name, rows)


if __name__ == "__main__":
    main()

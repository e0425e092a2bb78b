"""Seconds of one training cycle: rollout schedules, forwards packed or one by one, kernels off and on.

    python benchmarks/step_cost.py [RECIPE] [--cycles 8] [--out results/step_cost.csv]

The variants take turns (A B C D A B C D ...), so that a machine whose speed drifts slows all of them alike; medians.
"off" is what a recipe without `kernels:` computes with, "on" is `kernels: {use: auto}`; both run in the same world.
Seconds are the clock's; processor seconds leave out what other programs took, so the speedup is that of these.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

from attrs import frozen
from clora_triton.kernels import Auto
from machine import write_rows

from clora.adapters.adapted import Routing
from clora.adapters.eager import eager_lora_linear
from clora.cost import forward_equivalents
from clora.pipeline import run_folder
from clora.plan import make_plan
from clora.plugins import discover
from clora.progress import Progress
from clora.recipe.load import load_recipe
from clora.seeding import Draws
from clora.stages.prepare import prepare
from clora.training.batches import Batches
from clora.training.cycle import Cycle
from clora.training.loop import make_state
from clora.training.ranks import Ranks
from clora.world import World

ROOT = Path(__file__).parents[1]
KERNELS = {"off": eager_lora_linear, "on": Auto()}


@frozen
class Variant:
    """A cycle that is ready to run, what it counts, and where its kernel is set."""

    cycle: Cycle
    routing: Routing
    counted: float
    batch: int

    @classmethod
    def of(cls, recipe: Path, schedule: str, pack: bool) -> Variant:
        """The recipe's cycle with this schedule, packed or not."""
        sets = [f"train.schedule={schedule}", f"train.pack={str(pack).lower()}"]
        plan = make_plan(load_recipe(recipe, (), sets, discover()))
        world = World(plan)
        targets = prepare(plan, world, run_folder(plan, ROOT / "runs"), progress=Progress())
        state = make_state(plan, world, Ranks())
        cycle = Cycle(plan.recipe, Batches(plan, world, targets), world.evaluator, state.student, state.critic)
        return cls(cycle, world.adapted.routing, forward_equivalents(plan), plan.recipe.train.batch_size)

    def seconds(self, update: int, kernel: str) -> tuple[float, float]:
        """(the clock's, the processor's) of one cycle."""
        self.routing.kernel = KERNELS[kernel]
        started = time.perf_counter(), time.process_time()
        self.cycle.run(update, Draws(0))
        return time.perf_counter() - started[0], time.process_time() - started[1]


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", type=Path, default=ROOT / "recipes/collection.yaml")
    parser.add_argument("--cycles", type=int, default=8)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/step_cost.csv")
    args = parser.parse_args()
    cases = list(itertools.product(("independent", "shared"), (True, False)))
    variants = {case: Variant.of(args.recipe, *case) for case in cases}
    seconds = {(*case, kernel): [] for case in cases for kernel in KERNELS}
    for update in range(args.cycles + 1):
        for case, variant in variants.items():
            for kernel in KERNELS if update % 2 else reversed(KERNELS):
                spent = variant.seconds(update, kernel)
                if update:  # the first warms caches up
                    seconds[(*case, kernel)].append(spent)
    rows = []
    for (schedule, pack, kernel), spent in seconds.items():
        variant, middle = variants[schedule, pack], statistics.median(wall for wall, _ in spent)
        pairs = zip(seconds[schedule, pack, "off"], spent, strict=True)
        rows.append(
            {
                "recipe": args.recipe.stem,
                "schedule": schedule,
                "pack": pack,
                "kernels": kernel,
                "batch": variant.batch,
                "forward_equivalents": round(variant.counted, 2),
                "median_seconds": round(middle, 3),
                "median_processor_seconds": round(statistics.median(work for _, work in spent), 3),
                # of two cycles of one step, which ran one right after the other
                "median_speedup": round(statistics.median(off / own for (_, off), (_, own) in pairs), 3),
                "milliseconds_per_row_forward": round(1000 * middle / variant.counted / variant.batch, 3),
                "cycles": args.cycles,
            }
        )
        print(rows[-1])
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()

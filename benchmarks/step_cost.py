"""Seconds of one training cycle: both rollout schedules, forwards packed or one by one, against what the loop counts.

    python benchmarks/step_cost.py [RECIPE] [--cycles 8]

The variants take turns (A B C D A B C D ...), so that a machine whose speed drifts slows all of them alike; medians.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

from machine import write_rows

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


def variant(recipe: Path, schedule: str, pack: bool):
    """A ready cycle and its counted cost."""
    sets = [f"train.schedule={schedule}", f"train.pack={str(pack).lower()}"]
    plan = make_plan(load_recipe(recipe, (), sets, discover()))
    world = World(plan)
    targets = prepare(plan, world, run_folder(plan, ROOT / "runs"), progress=Progress())
    state = make_state(plan, world, Ranks())
    cycle = Cycle(plan.recipe, Batches(plan, world, targets), world.evaluator, state.student, state.critic)
    return cycle, forward_equivalents(plan), plan.recipe.train.batch_size


def main() -> None:
    """Measure and write results/step_cost.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", type=Path, default=ROOT / "recipes/collection.yaml")
    parser.add_argument("--cycles", type=int, default=8)
    args = parser.parse_args()
    cases = {case: variant(args.recipe, *case) for case in itertools.product(("independent", "shared"), (True, False))}
    seconds: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
    for update in range(args.cycles + 1):
        for case, (cycle, _, _) in cases.items():
            started = time.perf_counter()
            cycle.run(update, Draws(0))
            if update:  # the first warms caches up
                seconds[case].append(time.perf_counter() - started)
    rows = []
    for (schedule, pack), (_, counted, batch) in cases.items():
        middle = statistics.median(seconds[schedule, pack])
        rows.append(
            {
                "recipe": args.recipe.stem,
                "schedule": schedule,
                "pack": pack,
                "batch": batch,
                "forward_equivalents": round(counted, 2),
                "median_seconds": round(middle, 3),
                "milliseconds_per_row_forward": round(1000 * middle / counted / batch, 3),
                "cycles": args.cycles,
            }
        )
        print(rows[-1])
    write_rows(ROOT / "benchmarks/results/step_cost.csv", rows)


if __name__ == "__main__":
    main()

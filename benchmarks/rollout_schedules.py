"""The two rollout schedules at equal updates and at equal cost: which gives the better student?

    python benchmarks/rollout_schedules.py [--recipe quickstart] [--updates 140] [--seeds 0 1 2] [--jobs 2]

Runs the recipe's method under `shared`, under `independent` with as many updates, and under `independent` with as many
updates as `shared` paid for, in the forward passes that the loop counts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from machine import write_rows
from many_runs import ROOT, Run, carry_out, summary, threads_of_each

VALUES = ("bad_case_rate", "distance", "general_ratio")


def main() -> None:
    """Measure and write results/rollout_schedules.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--updates", type=int, default=140)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/quickstarts")
    args = parser.parse_args()

    def runs(schedule: str, updates: int) -> list[Run]:
        sets = (f"train.schedule={schedule}", f"train.steps={updates}")
        return [Run(args.recipe, (*sets, f"seed={seed}")) for seed in args.seeds]

    both = carry_out([*runs("shared", args.updates), *runs("independent", args.updates)], args.runs, args.jobs)
    shared, equal_updates = (summary(part, VALUES) for part in (both[: len(args.seeds)], both[len(args.seeds) :]))
    # the cost counted by the loop, not the clock, decides how many fit: the clock of a shared machine wanders
    dear, cheap = (float(str(part["forward_equivalents"])) for part in (shared, equal_updates))
    fitting = round(args.updates * dear / cheap)
    equal_cost = summary(carry_out(runs("independent", fitting), args.runs, args.jobs), VALUES)
    threads = threads_of_each(args.jobs)
    rows = [
        {"case": "shared", "updates": args.updates, **shared, "threads": threads},
        {"case": "independent, equal updates", "updates": args.updates, **equal_updates, "threads": threads},
        {"case": "independent, equal cost", "updates": fitting, **equal_cost, "threads": threads},
    ]
    for found in rows:
        print(found)
    write_rows(ROOT / "benchmarks/results/rollout_schedules.csv", rows)


if __name__ == "__main__":
    main()

"""The two rollout schedules at equal updates and at equal cost: which gives the better student?

    python benchmarks/rollout_schedules.py [--recipe quickstart] [--updates 200] [--seeds 0 1 2] [--jobs 2]

Runs the recipe's method under `shared`, under `independent` with as many updates, and under `independent` with as many
updates as `shared` paid for, in the forward passes that the loop counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from machine import write_rows
from many_runs import ROOT, Run, carry_out

from clora.runs import RunFolder

VALUES = ("bad_case_rate", "distance", "general_ratio")
Results = dict[str, float]


def measured(folder: RunFolder) -> Results:
    """One run's results, its training seconds and its counted cost."""
    steps = [json.loads(line) for line in folder.steps.read_text().splitlines()]
    values = folder.read_results()["values"]
    return {
        **{name: values[name] for name in VALUES},
        "seconds": sum(step["seconds"] for step in steps),
        "forward_equivalents": statistics.mean(step["forward_equivalents"] for step in steps),
    }


def row(label: str, updates: int, results: Sequence[Results]) -> dict[str, object]:
    """Means and sample standard deviations over the seeds."""
    found: dict[str, object] = {"case": label, "updates": updates, "seeds": len(results)}
    for name in (*VALUES, "seconds", "forward_equivalents"):
        values = [result[name] for result in results]
        found[name] = round(statistics.mean(values), 4)
        found[f"{name}_sd"] = round(statistics.stdev(values), 4) if len(values) > 1 else ""
    return found


def main() -> None:
    """Measure and write results/rollout_schedules.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/rollout_schedules")
    args = parser.parse_args()

    def runs(schedule: str, updates: int) -> list[Run]:
        sets = (f"train.schedule={schedule}", f"train.steps={updates}")
        return [Run(args.recipe, (*sets, f"seed={seed}")) for seed in args.seeds]

    both = [*runs("shared", args.updates), *runs("independent", args.updates)]
    results = [measured(folder) for folder in carry_out(both, args.runs, args.jobs)]
    shared, equal_updates = results[: len(args.seeds)], results[len(args.seeds) :]
    # the cost counted by the loop, not the clock, decides how many fit: the clock of a shared machine wanders
    cost = [statistics.mean(result["forward_equivalents"] for result in part) for part in (shared, equal_updates)]
    fitting = round(args.updates * cost[0] / cost[1])
    equal_cost = [measured(folder) for folder in carry_out(runs("independent", fitting), args.runs, args.jobs)]
    rows = [
        row("shared", args.updates, shared),
        row("independent, equal updates", args.updates, equal_updates),
        row("independent, equal cost", fitting, equal_cost),
    ]
    for found in rows:
        print(found)
    write_rows(ROOT / "benchmarks/results/rollout_schedules.csv", rows)


if __name__ == "__main__":
    main()

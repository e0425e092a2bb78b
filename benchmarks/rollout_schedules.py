"""The two rollout schedules at equal updates and at equal time: which gives the better student?

    python benchmarks/rollout_schedules.py [--seeds 0 1 2]

Runs the quick start's method under `shared`, under `independent` with as many updates, and under `independent` with as
many updates as fit the time that `shared` took (from the measured seconds of both).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from machine import write_rows

ROOT = Path(__file__).parents[1]
VALUES = ("bad_case_rate", "distance", "general_ratio")


def run(schedule: str, updates: int, seed: int, runs: Path) -> dict[str, float]:
    """One run's results and its training seconds."""
    folder = runs / f"{schedule}-{updates}-seed{seed}"
    sets = [f"train.schedule={schedule}", f"train.steps={updates}", f"seed={seed}"]
    words = [word for setting in sets for word in ("--set", setting)]
    command = [sys.executable, "-m", "clora", "run", str(ROOT / "recipes/quickstart.yaml"), "--run-dir", str(folder)]
    subprocess.run([*command, *words], check=True)
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    values = json.loads((folder / "evaluate/results.json").read_text())["values"]
    return {
        **{name: values[name] for name in VALUES},
        "seconds": sum(step["seconds"] for step in steps),
        "forward_equivalents": statistics.mean(step["forward_equivalents"] for step in steps),
    }


def main() -> None:
    """Measure and write results/rollout_schedules.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/rollout_schedules")
    args = parser.parse_args()
    shared = [run("shared", args.updates, seed, args.runs) for seed in args.seeds]
    equal_updates = [run("independent", args.updates, seed, args.runs) for seed in args.seeds]
    # the cost counted by the loop, not the clock, decides how many fit: the clock of a shared machine wanders
    share = shared[0]["forward_equivalents"] / equal_updates[0]["forward_equivalents"]
    fitting = round(args.updates * share)
    equal_time = [run("independent", fitting, seed, args.runs) for seed in args.seeds]
    rows = []
    for label, updates, results in (
        ("shared", args.updates, shared),
        ("independent, equal updates", args.updates, equal_updates),
        ("independent, equal cost", fitting, equal_time),
    ):
        row: dict[str, object] = {"case": label, "updates": updates, "seeds": len(results)}
        for name in (*VALUES, "seconds", "forward_equivalents"):
            values = [result[name] for result in results]
            row[name] = round(statistics.mean(values), 4)
            row[f"{name}_sd"] = round(statistics.stdev(values), 4) if len(values) > 1 else ""
        rows.append(row)
        print(row)
    write_rows(ROOT / "benchmarks/results/rollout_schedules.csv", rows)


if __name__ == "__main__":
    main()

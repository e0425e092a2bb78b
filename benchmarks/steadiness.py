"""What makes a short run good and steady: the parts that we chose, one taken away (or momentum added) at a time.

    python benchmarks/steadiness.py [--recipe quickstart] [--updates 140] [--seeds 0 1 2] [--jobs 2]

Every case trains equally long; the recipe as it is stands first, and runs that another benchmark finished are reused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from machine import write_rows
from many_runs import ROOT, Run, carry_out, summary, threads_of_each

VALUES = ("bad_case_rate", "distance", "general_ratio")
CASES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "no moving average": ("student.ema=null",),
    "no decay": ("train.decay=0",),
    "critic on rollouts alone": ("critic.losses.on_target=null",),
    "momentum 0.9": ("train.betas=[0.9, 0.99]",),
}


def main() -> None:
    """Measure and write results/steadiness.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--updates", type=int, default=140)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/quickstarts")
    args = parser.parse_args()
    length = f"train.steps={args.updates}"
    wanted = [Run(args.recipe, (length, *CASES[case], f"seed={seed}")) for case in args.cases for seed in args.seeds]
    folders = carry_out(wanted, args.runs, args.jobs)
    rows = []
    for i, case in enumerate(args.cases):
        found = summary(folders[i * len(args.seeds) : (i + 1) * len(args.seeds)], VALUES)
        rows.append({"case": case, "updates": args.updates, **found, "threads": threads_of_each(args.jobs)})
        print(rows[-1])
    write_rows(ROOT / "benchmarks/results/steadiness.csv", rows)


if __name__ == "__main__":
    main()

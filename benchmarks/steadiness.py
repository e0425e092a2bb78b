"""What makes a short run good and steady: the parts that we chose, one taken away (or momentum added) at a time.

    python benchmarks/steadiness.py [--recipe quickstart] [--updates 140] [--seeds 0 1 2] [--jobs 2]

Every case trains equally long; the recipe as it is stands first, and runs that another benchmark finished are reused.
"""

from __future__ import annotations

from cases import Case, parser_of, rows_of
from machine import write_rows
from many_runs import ROOT

CASES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "no moving average": ("student.ema=null",),
    "no decay": ("train.decay=0",),
    "critic on rollouts alone": ("critic.losses.on_target=null",),
    "momentum 0.9": ("train.betas=[0.9, 0.99]",),
}


def main() -> None:
    """Measure and write results/steadiness.csv."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    args = parser.parse_args()
    rows = rows_of({name: Case(args.updates, CASES[name]) for name in args.cases}, args)
    write_rows(ROOT / "benchmarks/results/steadiness.csv", rows)


if __name__ == "__main__":
    main()

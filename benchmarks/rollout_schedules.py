"""The two rollout schedules at equal updates and at equal cost: which gives the better student?

    python benchmarks/rollout_schedules.py [--recipe quickstart] [--updates 140] [--seeds 0 1 2] [--jobs 2]

Runs the recipe's method under `shared`, under `independent` with as many updates, and under `independent` with as many
updates as `shared` paid for, in the forward passes that the loop counts.
"""

from __future__ import annotations

from cases import Case, parser_of, rows_of
from machine import write_rows
from many_runs import ROOT


def main() -> None:
    """Measure and write results/rollout_schedules.csv."""
    args = parser_of(__doc__).parse_args()
    independent = ("train.schedule=independent",)
    rows = rows_of(
        {
            "shared": Case(args.updates, ("train.schedule=shared",)),
            "independent, equal updates": Case(args.updates, independent),
        },
        args,
    )
    # the cost counted by the loop, not the clock, decides how many fit: the clock of a shared machine wanders
    dear, cheap = (float(str(row["forward_equivalents"])) for row in rows)
    fitting = round(args.updates * dear / cheap)
    rows += rows_of({"independent, equal cost": Case(fitting, independent)}, args)
    write_rows(ROOT / "benchmarks/results/rollout_schedules.csv", rows)


if __name__ == "__main__":
    main()

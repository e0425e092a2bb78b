"""The paper's Tables 1 and 3 on the emoji world: every ablation and every baseline, several seeds, two Markdown tables.

    python benchmarks/ablations.py [--seeds 0 1 2] [--baseline-seeds 0] [--jobs 2] [--tables ablations cold baselines]

Every row has its recipe's own size. The table `cold` is the ablations without the warm start, with as many more updates
as cost what it costs. A run that is finished is not run again, and an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from clora_studies.compare_command import as_json, as_markdown
from clora_studies.comparison import compare, read_runs
from machine import provenance
from many_runs import ROOT, Run, carry_out, threads_of_each

from clora.runs.run_dir import RunDir

ABLATIONS = (
    "collection",
    "ablation_pdsr_only",
    "ablation_no_ts_no_tafm",
    "ablation_no_tafm",
    "ablation_no_pdsr",
    "ablation_no_aop",
    "bs_only",
    "ts_without_bounds",
)
#: an order in which no two that begin the same way begin side by side: the second one takes what the first has trained
IN_TURN = (
    "collection",
    "ablation_no_pdsr",
    "ablation_pdsr_only",
    "ablation_no_ts_no_tafm",
    "ablation_no_tafm",
    "ablation_no_aop",
    "ts_without_bounds",
    "bs_only",
)
# not the paper's: our own question, asked with as few seeds as the baselines
OURS = ("critic_on_backward_only",)
# what is not trained has nothing that a seed would change, but DARE, which drops weights by chance
SEEDLESS = ("effect_lora", "merge_svd", "merge_ties_svd")
SEEDED = ("merge_dare_ties_svd", "effect_lora_plus_acceleration", "flow_matching_all_in_one", "opd")
#: no warm start; for its forward-equivalents (800 updates of 3.3 a row) cycles of 17, at a cold start's rate
COLD = ("warm_start=null", "train.steps=275", "train.lr=3e-3", "critic.lr=2e-3")
#: the teachers' own pictures are the same in every row; the table of baselines has them
NO_TEACHERS = "evaluate.teacher=false"
TABLES = ("ablations", "cold", "baselines")
COLUMNS = ("bad_case_rate", "subject_consistency", "distance", "general_ratio")


def runs_of(recipes: Sequence[str], seeds: Sequence[int], *sets: str) -> list[Run]:
    """One run for every recipe and seed, the first seed of all recipes first."""
    return [Run(recipe, (f"seed={seed}", *sets)) for seed in seeds for recipe in recipes]


def write_table(name: str, folders: Sequence[RunDir], jobs: int) -> str:
    """Write NAME.md and NAME.json beside the other results; returns the Markdown."""
    results = ROOT / "benchmarks/results"
    read = read_runs([folder.path for folder in folders])
    table = as_markdown(compare(read, COLUMNS))
    values = as_json(compare(read))
    for row in values["rows"]:
        for run in row["runs"]:
            run["folder"] = Path(run["folder"]).name
    where = provenance() | {"threads": str(threads_of_each(jobs))}
    (results / f"{name}.md").write_text(f"{table}\n")
    (results / f"{name}.json").write_text(json.dumps({"provenance": where} | values, indent=1) + "\n")
    return table


def main() -> None:
    """Run all, write results/NAME.{md,json} of every table, print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--baseline-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/ablations")
    args = parser.parse_args()
    for name in args.tables:
        if name == "baselines":  # the acceleration LoRA first: two of them would otherwise train it side by side
            carry_out(runs_of(["acceleration", "collection"], args.baseline_seeds), args.runs, args.jobs)
            wanted = [*runs_of(SEEDLESS, args.seeds[:1]), *runs_of([*SEEDED, "collection"], args.baseline_seeds)]
        else:
            sets = (NO_TEACHERS, *(COLD if name == "cold" else ()))
            carry_out(runs_of(IN_TURN, args.seeds, *sets), args.runs, args.jobs)
            ours = runs_of(OURS, args.baseline_seeds, *sets)
            wanted = [*runs_of(ABLATIONS, args.seeds, *sets), *ours]
        file = f"ablations_{name}" if name == "cold" else name
        print(write_table(file, carry_out(wanted, args.runs, args.jobs), args.jobs), flush=True)


if __name__ == "__main__":
    main()

"""What each part of the training gives: variants of the quick start, a table of means and the same eight faces of each.

    python benchmarks/changes.py [--cases "as it is" "without the warm start" ...] [--seeds 0 1 2] [--jobs 2]

Every case is the recipe as it stands with one thing changed. Writes results/changes.{md,json} and docs/changes.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from clora_studies.compare_command import as_json, as_markdown
from clora_studies.comparison import compare, read_runs
from faces import sheet
from machine import provenance
from many_runs import ROOT, Run, carry_out, threads_of_each

from clora.runs.run_dir import RunDir

COLUMNS = ("bad_case_rate", "distance", "subject_consistency", "general_ratio")
#: by what it is called: the settings that make it
CASES: Mapping[str, tuple[str, ...]] = {
    "as it is": (),
    "shift 3": ("student.shift=3",),
    "without the warm start": ("warm_start=null",),
    "a warm start on effects alone": ("warm_start.losses.keep=null", "warm_start.router.p_switch=1"),
    "only the student begins warm": ("warm_start.critic=false",),
    "the warm start's rate kept to its end": ("warm_start.decay=0",),
    "no rising rate after the warm start": ("train.warmup_steps=0",),
    "momentum in the cycles too": ("train.betas=[0.9, 0.99]",),
    "two critic updates, shared rollouts": ("critic.updates=2", "train.schedule=shared"),
    "the critic's first update on a fresh rollout": ("critic.reuse_rollout=false",),
    "critic at twice the rate": ("critic.lr=2e-3",),
    "critic of rank 64": ("critic.rank=64",),
    "a critic for each simulation": ("critic.own=[target]",),
    "TS-DMD fades in over half": ("losses.ts_dmd.fade_in=0.5",),
    "TA-FM fades out over half": ("losses.ta_fm.fade_out=0.5",),
    "floor of .2 spread": ("losses.bs_dmd.floor_of_spread=0.2", "losses.ts_dmd.floor_of_spread=0.2"),
    "TS from the last three levels": ("simulations.target.tau_max=null", "simulations.target.last_steps=3"),
    "TS-DMD without bounds": ("simulations.target.tau_max=null", "losses.ts_dmd.tau_min=0"),
    "without TS-DMD": ("losses.ts_dmd=null", "critic.losses.on_target=null", "simulations.target=null"),
}


def main() -> None:
    """Run all, write table and faces, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/changes")
    args = parser.parse_args()
    wanted = [Run(args.recipe, (*CASES[case], f"seed={seed}")) for seed in args.seeds for case in args.cases]
    folders = carry_out(wanted, args.runs, args.jobs)
    by_case = {case: folders[i :: len(args.cases)] for i, case in enumerate(args.cases)}
    print(write_table(by_case, args.jobs))
    sheet({case: each[0] for case, each in by_case.items()}).save(ROOT / "docs/changes.png", optimize=True)


def write_table(by_case: Mapping[str, Sequence[RunDir]], jobs: int) -> str:
    """Write changes.md and changes.json beside the other results, a row for each case; returns the Markdown."""
    table, kept = [], {}
    for case, folders in by_case.items():
        found = compare(read_runs([folder.path for folder in folders]), COLUMNS)
        head, line, row = as_markdown(found).splitlines()[:3]
        cells = row.split("|")
        table = table or [head, line]
        table.append("|".join(["", f" {case} ", *cells[2:]]))
        kept[case] = {"settings": list(CASES[case]), **as_json(found)["rows"][0]["values"]}
    text = "\n".join(table)
    results = ROOT / "benchmarks/results"
    (results / "changes.md").write_text(f"{text}\n")
    where = provenance() | {"threads": str(threads_of_each(jobs))}
    (results / "changes.json").write_text(json.dumps({"provenance": where, "cases": kept}, indent=1) + "\n")
    return text


if __name__ == "__main__":
    main()

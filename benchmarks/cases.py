"""Variants of one recipe over several seeds: the same command line, the same columns, a row for each variant."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen
from many_runs import ROOT, Run, carry_out, threads_of_each

from clora.runs.run_dir import RunDir

VALUES = ("bad_case_rate", "distance", "general_ratio")


@frozen
class Case:
    """How many updates a variant trains for, and the settings that make it one."""

    updates: int
    sets: tuple[str, ...] = ()


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The options that all comparisons of variants share."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--updates", type=int, default=140)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/quickstarts")
    return parser


def rows_of(cases: Mapping[str, Case], args: argparse.Namespace) -> list[dict[str, object]]:
    """Run every case with every seed; a row each, with means and sample standard deviations over the seeds."""
    wanted = [
        Run(args.recipe, (f"train.steps={case.updates}", *case.sets, f"seed={seed}"))
        for case in cases.values()
        for seed in args.seeds
    ]
    folders = iter(carry_out(wanted, args.runs, args.jobs))
    rows: list[dict[str, object]] = []
    for label, case in cases.items():
        found = _summary([next(folders) for _ in args.seeds])
        rows.append({"case": label, "updates": case.updates, **found, "threads": threads_of_each(args.jobs)})
        print(rows[-1], flush=True)
    return rows


def _summary(folders: Sequence[RunDir]) -> dict[str, object]:
    """Results, training seconds and counted cost of runs that differ in their seeds."""
    found: dict[str, object] = {"seeds": len(folders)}
    measured = [_measured(folder) for folder in folders]
    for name in (*VALUES, "seconds", "forward_equivalents"):
        values = [each[name] for each in measured]
        found[name] = round(statistics.mean(values), 4)
        found[f"{name}_sd"] = round(statistics.stdev(values), 4) if len(values) > 1 else ""
    return found


def _measured(folder: RunDir) -> dict[str, float]:
    steps = [json.loads(line) for line in folder.steps.read_text().splitlines()]
    values = folder.read_results().values
    return {
        **{name: values[name] for name in VALUES},
        "seconds": sum(step["seconds"] for step in steps),
        "forward_equivalents": statistics.mean(step["forward_equivalents"] for step in steps),
    }

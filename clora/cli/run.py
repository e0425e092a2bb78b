"""`clora run RECIPE`: prepare, train, export, evaluate, report; the same command goes on where it was stopped."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clora.cli.recipes import add_recipe_arguments, planned
from clora.process.stopping import during, only_if

if TYPE_CHECKING:
    from clora.planning.plan import Plan
    from clora.plugin_system.catalogue import Catalogue
    from clora.runs.run_dir import RunDir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_recipe_arguments(parser)
    add_run_arguments(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """--runs, --run-dir and --quiet, which `prepare` shares."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs lie (default: runs)")
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="this run's own folder, instead of NAME-HASH in --runs"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Carry the recipe out."""
    plan, catalogue = planned(args)  # every mistake in the recipe is told before torch starts threads or loads weights
    from clora.runs.job import run_folder
    from clora.runs.run_dir import RunDir

    folder = RunDir(args.run_dir) if args.run_dir else run_folder(plan, args.runs)
    return carry_out(plan, catalogue, folder, quiet=args.quiet)


@during("", "what is made is kept")
def carry_out(
    plan: Plan, catalogue: Catalogue, folder: RunDir, *, quiet: bool, judge: Callable[[], int] = lambda: 0
) -> int:
    """Every stage of a plan in its folder, on every rank; `judge` has the last word, on the first rank."""
    from clora.planning.report_files import report_files
    from clora.runs.files.steps import read_steps
    from clora.runs.job import make_job
    from clora.runs.pipeline import Pipeline
    from clora.runs.progress import Progress
    from clora.runs.stages.alarms import alarms
    from clora.training.distributed import Distributed

    job = make_job(plan, catalogue, folder)
    ranks = Distributed.current()
    only_if(ranks.first)
    progress = Progress(on=ranks.first and not quiet)
    try:
        Pipeline(job, catalogue, ranks, progress).run()
    finally:
        ranks.close()
    if not ranks.first:
        return 0
    print(headline(folder, report_files(plan.recipe.reporters)))
    for sentence in alarms(plan, read_steps(folder.steps).reports):
        print(f"{'warning':<28} {sentence}")
    return judge()


def headline(folder: RunDir, reports: Sequence[str]) -> str:
    """The results' plain numbers and where to look."""
    results = folder.read_results()
    lines = [f"{name:<28} {value:.4g}" for name, value in results.values.items()]
    lines += [f"{'report':<28} {folder.path / name}" for name in reports]
    if folder.lora.exists():
        lines += [f"{'LoRA':<28} {folder.lora}"]
    return "\n".join(lines)

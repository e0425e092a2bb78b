"""`clora evaluate RUN`: measure a run's exported LoRA again and rewrite its report."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run's folder, exported")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Evaluate anew, whatever was evaluated before."""
    from clora.cli.recipes import plan_of_run
    from clora.cli.run import headline
    from clora.planning.report_files import report_files
    from clora.process.stopping import during
    from clora.runs.job import make_job
    from clora.runs.pipeline import Pipeline
    from clora.runs.progress import Progress
    from clora.runs.run_dir import RunDir
    from clora.training.distributed import Distributed

    folder = RunDir(args.run_dir)
    plan, catalogue = plan_of_run(folder)
    if plan.recipe.serve.adapter != "teachers":
        folder.check_lora()
    job = make_job(plan, catalogue, folder)
    with during("", "what is made is kept"):
        Pipeline(job, catalogue, Distributed(), Progress(on=not args.quiet)).evaluate_again()
    print(headline(folder, report_files(plan.recipe.reporters)))
    return 0

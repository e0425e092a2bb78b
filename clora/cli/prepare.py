"""`clora prepare RECIPE`: what `clora run` makes before it trains, and no more; look at it, then run."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from clora.cli.recipes import add_recipe_arguments, planned
from clora.cli.run import add_run_arguments
from clora.process.stopping import during, only_if

if TYPE_CHECKING:
    from clora.planning.plan import Plan
    from clora.runs.run_dir import RunDir
    from clora.training.batches import Targets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: those of `run`."""
    add_recipe_arguments(parser)
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Make it, or what is missing of it."""
    plan, catalogue = planned(args)
    from clora.runs.job import make_job, run_folder
    from clora.runs.pipeline import Pipeline
    from clora.runs.progress import Progress
    from clora.runs.run_dir import RunDir
    from clora.training.distributed import Distributed

    folder = RunDir(args.run_dir) if args.run_dir else run_folder(plan, args.runs)
    job = make_job(plan, catalogue, folder)
    ranks = Distributed.current()
    only_if(ranks.first)
    progress = Progress(on=ranks.first and not args.quiet)
    try:
        with during("", "what is made is kept"):
            targets = Pipeline(job, catalogue, ranks, progress).prepare()
    finally:
        ranks.close()
    if ranks.first:
        print(_summary(args, plan, folder, targets))
    return 0


def _summary(args: argparse.Namespace, plan: Plan, folder: RunDir, targets: Targets | None) -> str:
    """What there is now, where to look, and how to go on."""
    if targets is None:
        what = "none: this recipe serves what needs no training"
        facts = {"teacher outputs": what}
    else:
        count = sum(len(names) for names in targets.names.values())
        facts = {"teacher outputs": f"{count} of {len(targets.names)} effects, in {folder.cache / 'targets'}"}
        if plan.recipe.prepare.previews:
            facts["look at"] = f"{folder.prepare}: source | teacher's output, a sheet per effect"
    facts["go on with"] = _command(args)
    return "\n".join(f"{name:<15} {fact}" for name, fact in facts.items())


def _command(args: argparse.Namespace) -> str:
    """`clora run` with the same arguments."""
    words = ["clora", "run", str(args.recipe)]
    words += ["--world", str(args.world)] if args.world else []
    words += [word for file in args.with_files for word in ("--with", str(file))]
    words += [word for text in args.sets for word in ("--set", text)]
    if args.run_dir:
        words += ["--run-dir", str(args.run_dir)]
    elif str(args.runs) != "runs":
        words += ["--runs", str(args.runs)]
    return shlex.join(words)

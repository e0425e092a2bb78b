"""What a pipeline carries out: a plan in its folder, after the run that it adds at serving time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from clora.config.load import load_recipe
from clora.config.tree import Mark
from clora.errors import shown
from clora.planning.plan import Plan, make_plan
from clora.runs.run_dir import RunDir

if TYPE_CHECKING:
    from clora.plugin_system.catalogue import Catalogue


@frozen
class Job:
    """One run to carry out: the plan, its folder, and what it adds at serving time."""

    plan: Plan
    folder: RunDir
    plus: Job | None = None


def run_folder(plan: Plan, runs: Path) -> RunDir:
    """Where a plan runs unless told otherwise: its name and hash, so the same command finds its own folder."""
    return RunDir(runs / f"{plan.recipe.name}-{plan.digest[:8]}")


def make_job(plan: Plan, catalogue: Catalogue, folder: RunDir) -> Job:
    """The job of a plan, with the job of the recipe that `serve.plus` names (with the same seed) before it.

    Raises RecipeError with the mistakes of that recipe, of those that it adds, and where they add one another.
    """
    plus, serve = None, plan.recipe.serve
    if serve.plus is not None:
        sets = [f"seed={plan.recipe.seed}"]
        named_by = Mark(f"{shown(plan.recipe.name)}'s serve.plus", Path.cwd())
        added = load_recipe(serve.plus, (), sets, catalogue, world=serve.plus_world, named_by=named_by)
        other = make_plan(added)
        plus = make_job(other, catalogue, run_folder(other, folder.path.parent))
    return Job(plan, folder, plus)

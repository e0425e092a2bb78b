"""`clora validate RECIPE`: every check that needs no model, and what the run would cost."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from clora.cli.recipes import add_recipe_arguments, checked, loaded, tell_warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    from clora.config.load import LoadedRecipe
    from clora.planning.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--memory", metavar="24GB", help="the GPU's memory, where it is not this machine's own")
    parser.add_argument("--data", action="store_true", help="decode every picture too, and compare pixels")


def run(args: argparse.Namespace) -> int:
    """Check the recipe, its data and its teachers' files, and those of the recipe it adds; print the cost."""
    from clora.planning.memory import capacity, own_capacity

    room = None if args.memory is None else capacity(args.memory)
    recipe, _ = loaded(args)
    plan = checked(recipe, plus=True)
    from clora.planning.cost import cost

    doubts = len(plan.warnings)
    if args.data:
        read, more = _check_data(plan, recipe)
        doubts += more
    else:
        read = "pictures were read as far as their headers; `--data` decodes every one" if plan.pictures() else ""
    print(_told(cost, plan, own_capacity() if room is None else room))
    if read:
        print(read)
    warned = f"; {doubts} warning{'s' * (doubts != 1)} above" if doubts else ""
    print(f"valid: nothing stands in the way of this run{warned}")
    return 0


def _told(cost: Callable[[Plan, int | None], str], plan: Plan, room: int | None) -> str:
    """The cost; where a component cannot be counted, why: counting runs it on latents of 4 x 4."""
    from clora.plugin_system.guard import ComponentError

    try:
        return cost(plan, room)
    except ComponentError as error:
        return f"{'cost':<15} not counted, which is done on empty latents of 4 x 4: {error}"


def _check_data(plan: Plan, recipe: LoadedRecipe) -> tuple[str, int]:
    """Decode all pictures; what was done, and how many warnings were printed. Raises RecipeError with the damaged."""
    from attrs import evolve

    from clora.config.problems import Problem, RecipeError
    from clora.runs.progress import Progress
    from clora.toolkit.picture_check import check_pictures

    found = check_pictures(plan.pictures(), Progress().counted)
    mark = recipe.mark_of("dataset")
    if found.problems:
        raise RecipeError(Problem(mark, f"dataset: {sentence}") for sentence in found.problems)
    told = [str(Problem(mark, f"dataset: {sentence}")) for sentence in found.doubts]
    fresh = tuple(warning for warning in told if warning not in plan.warnings)
    tell_warnings(evolve(plan, warnings=fresh))
    if not found.count:
        return "this dataset has no pictures of its own to decode", len(fresh)
    return f"{found.count:,} picture{'s' * (found.count != 1)} decoded, none is damaged", len(fresh)

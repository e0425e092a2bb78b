"""`clora show RECIPE`: the recipe with every value, and where each one was written."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from clora.cli.recipes import add_recipe_arguments, loaded
from clora.errors import CloraError, shown

if TYPE_CHECKING:
    from clora.config.load import LoadedRecipe
    from clora.config.schema import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--plain", action="store_true", help="leave out where the values come from")


def run(args: argparse.Namespace) -> int:
    """Print YAML that is itself a recipe, with the same digest."""
    recipe, _ = loaded(args)
    print(f"# {shown(recipe.file.name)}, digest {_digest(recipe)}")
    print(f"# schedule: {_schedule(recipe.recipe)}")
    if recipe.world is not None:
        print(f"# world: {shown(recipe.world)}")
    print(recipe.resolved_yaml() if args.plain else recipe.show(), end="")
    return 0


def _digest(recipe: LoadedRecipe) -> str:
    """The run's own; where a file that it depends on cannot be read, the recipe's alone."""
    from clora.planning.plan import run_digest

    try:
        return run_digest(recipe)
    except (CloraError, ValueError, OSError):  # a bank tells its mistakes by ValueError
        return f"{recipe.digest} of the recipe alone: `clora validate` tells what keeps the run's from being known"


def _schedule(recipe: Recipe) -> str:
    """The few steps in one line, or why their shift is not known; what is wrong with it `validate` tells."""
    from clora.planning.shift import shift_of, told

    try:
        return told(shift_of(recipe.student, recipe.backbone, recipe.dataset), recipe.student.steps)
    except CloraError as error:
        return f"its shift is not known: {error}"

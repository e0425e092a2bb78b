"""What `run`, `validate` and `show` share: the recipe's arguments, and the way from them to a checked plan."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clora.catalogue import Catalogue
    from clora.plan import Plan
    from clora.recipe.load import LoadedRecipe
    from clora.runs import RunFolder


#: how a launcher tells a process which one it is: what all of them would say, the first one says
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE, --with and --set."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe's YAML file")
    add_layer_arguments(parser)


def add_layer_arguments(parser: argparse.ArgumentParser) -> None:
    """--with and --set."""
    parser.add_argument(
        "--with", dest="with_files", action="append", default=[], type=Path, metavar="FILE", help="lay a recipe on top"
    )
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set one value, such as train.steps=50",
    )


def loaded(args: argparse.Namespace) -> tuple[LoadedRecipe, Catalogue]:
    """The recipe of the arguments and the catalogue it was read with. Raises RecipeError with every mistake."""
    from clora.plugins import discover
    from clora.recipe.load import load_recipe

    catalogue = discover()
    return load_recipe(args.recipe, args.with_files, args.sets, catalogue), catalogue


def planned(args: argparse.Namespace) -> tuple[Plan, Catalogue]:
    """The checked plan of the arguments, its warnings printed to stderr.

    Raises CloraError with every mistake in recipe, data and teachers' files.
    """
    recipe, catalogue = loaded(args)
    from clora.plan import make_plan

    plan = make_plan(recipe)
    tell_warnings(plan)
    return plan, catalogue


def tell_warnings(plan: Plan) -> None:
    """Print what is doubtful about a plan to stderr, a line each; of several processes the first one does."""
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        return
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def plan_of_run(folder: RunFolder) -> tuple[Plan, Catalogue]:
    """The plan that a run folder was made by, from the resolved recipe in it."""
    from clora.plan import make_plan
    from clora.plugins import discover
    from clora.recipe.load import load_recipe

    folder.info()  # tells at once where this is no run folder
    catalogue = discover()
    return make_plan(load_recipe(folder.recipe, (), (), catalogue), thorough=False), catalogue

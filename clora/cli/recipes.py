"""What `run`, `validate` and `show` share: the recipe's arguments, and the way from them to a checked plan."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clora.errors import CloraError, printable, quoted

if TYPE_CHECKING:
    from clora.config.load import LoadedRecipe
    from clora.planning.plan import Plan
    from clora.plugin_system.catalogue import Catalogue
    from clora.runs.run_dir import RunDir


#: how a launcher tells a process which one it is: what all of them would say, the first one says
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE, --world, --with and --set."""
    parser.add_argument(
        "recipe", type=Path, metavar="RECIPE", help="a recipe's YAML file, or one of clora's: clora:quickstart.yaml"
    )
    add_world_argument(parser)
    add_layer_arguments(parser)


def add_world_argument(parser: argparse.ArgumentParser) -> None:
    """--world."""
    parser.add_argument(
        "--world", type=Path, metavar="FILE", help="model, data and budget to stand on, not those that the recipe names"
    )


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
    from clora.config.load import load_recipe
    from clora.plugin_system.discovery import discover

    check_paths(args)
    catalogue = discover()
    return load_recipe(args.recipe, args.with_files, args.sets, catalogue, world=args.world), catalogue


def check_paths(args: argparse.Namespace) -> None:
    """Raise CloraError for the first path of the command line that no file system would take."""
    for name, path in _paths(vars(args)):
        _check_path(name, path)


def _check_path(name: str, path: Path) -> None:
    from clora.config.names import path_problem

    for each in (path, path.absolute()):
        problem = path_problem(each)
        if problem is not None:
            raise CloraError(f"{name}: the path {quoted(str(each))} {problem}")


def _paths(values: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Every path among the arguments with the word that it is given by: RECIPE, RUN, FILE, --with, --run-dir."""
    words = {"recipe": "RECIPE", "with_files": "--with", "files": "FILE"}
    if "recipe" not in values:  # a command on finished runs, whose folders are named first
        words |= {"run_dir": "RUN"} if "run_dir" in values else {"runs": "RUN"}
    for name, value in values.items():
        word = words.get(name, "--" + name.replace("_", "-"))
        members = value if isinstance(value, list) else [value]
        yield from ((word, member) for member in members if isinstance(member, Path))


def planned(args: argparse.Namespace) -> tuple[Plan, Catalogue]:
    """The checked plan of the arguments, its warnings told on stderr.

    Raises CloraError with every mistake in recipe, data and teachers' files.
    """
    recipe, catalogue = loaded(args)
    return checked(recipe), catalogue


def checked(recipe: LoadedRecipe, *, plus: bool = False) -> Plan:
    """The checked plan of a recipe, its warnings told on stderr; with `plus` the recipe that it adds is checked too.

    Raises CloraError with every mistake in recipe, data and teachers' files.
    """
    from clora.config.problems import RecipeError
    from clora.planning.plan import make_plan

    problems, plans, following = [], [], recipe
    while following is not None:
        try:
            plans.append(make_plan(following))
        except RecipeError as error:
            problems += error.problems
        following = following.plus if plus else None
    if problems:
        raise RecipeError(problems)
    for plan in plans:
        tell_warnings(plan)
    return plans[0]


def tell_warnings(plan: Plan) -> None:
    """Print what is doubtful about a plan to stderr, a line each; of several processes the first one does."""
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        return
    for warning in plan.warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)


def plan_of_run(folder: RunDir) -> tuple[Plan, Catalogue]:
    """The plan that a run folder was made by, from the resolved recipe in it."""
    from clora.config.load import load_recipe
    from clora.planning.plan import make_plan
    from clora.plugin_system.discovery import discover

    _check_path("RUN", folder.path)
    folder.info()  # tells at once where this is no run folder
    folder.check_recipe()
    catalogue = discover()
    # What is asked of a finished run needs no second recipe; what does (an evaluation) reads that for itself.
    return make_plan(load_recipe(folder.recipe, (), (), catalogue, plus=False), thorough=False), catalogue

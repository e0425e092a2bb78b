"""`clora show RECIPE`: the recipe with every value, and where each one was written."""

from __future__ import annotations

import argparse

from clora.cli.recipes import add_recipe_arguments, loaded
from clora.errors import shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--plain", action="store_true", help="leave out where the values come from")


def run(args: argparse.Namespace) -> int:
    """Print YAML that is itself a recipe, with the same digest."""
    recipe, _ = loaded(args)
    print(f"# {shown(recipe.file.name)}, digest {recipe.digest}")
    print(recipe.resolved_yaml() if args.plain else recipe.show(), end="")
    return 0

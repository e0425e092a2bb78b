"""`clora validate RECIPE`: every check that needs no model, and what the run would cost."""

from __future__ import annotations

import argparse

from clora.cli.recipes import add_recipe_arguments, planned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--memory", metavar="24GB", help="the GPU's memory, where it is not this machine's own")


def run(args: argparse.Namespace) -> int:
    """Check the recipe, its data and its teachers' files; print the cost."""
    from clora.memory_plan import capacity

    room = capacity(args.memory)
    plan, _ = planned(args)
    from clora.cost import cost

    print(cost(plan, room))
    doubts = f"; {len(plan.warnings)} warning{'s' * (len(plan.warnings) != 1)} above" if plan.warnings else ""
    print(f"valid: nothing stands in the way of this run{doubts}")
    return 0

"""`clora inspect FILE...`: what LoRA files hold, what is wrong with them, and which programs would get them wrong."""

from __future__ import annotations

import argparse
import json
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clora.cli.inspect_text import Fits, as_text
from clora.cli.recipes import add_layer_arguments, add_world_argument
from clora.errors import CloraError, quoted, reason

if TYPE_CHECKING:
    from clora.contracts.backbone import Backbone
    from clora.lora_io.survey import Survey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="LoRA files in any layout, a plugin's too")
    base = parser.add_mutually_exclusive_group()
    base.add_argument("--backbone", metavar="NAME", help="hold them against this backbone, as its plugin has it")
    base.add_argument("--recipe", type=Path, metavar="RECIPE", help="hold them against a recipe's backbone")
    add_world_argument(parser)
    add_layer_arguments(parser)
    parser.add_argument("--modules", action="store_true", help="a line for every linear, and every problem")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Print a report of every file; 2 if one of them cannot be used."""
    fits = _fits(args)
    from clora.lora_io.survey import survey

    surveys: list[Survey] = []
    for file in args.files:
        surveys.append(survey(file, fits.shapes))
        if not args.json:  # each as soon as it is known: a file of gigabytes takes seconds
            print("\n" * (len(surveys) > 1) + as_text(surveys[-1], fits, every=args.modules), flush=True)
    if args.json:
        print(json.dumps([as_json(found) for found in surveys], indent=2))
    return 2 if any(found.problems for found in surveys) else 0


def as_json(found: Survey) -> dict[str, Any]:
    """A survey for programs."""
    return {
        "file": str(found.path),
        "usable": not found.problems,
        "problems": list(found.problems),
        "doubts": list(found.doubts),
        "bytes": found.bytes,
        "layout": found.layout,
        "types": dict(found.types),
        "norm": _number(found.norm),
        "missing": None if found.missing is None else list(found.missing),
        "unmatched": list(found.unmatched),
        "metadata": dict(found.metadata),
        "pitfalls": [{"program": p.program, "what": p.what, "source": p.source} for p in found.pitfalls()],
        "linears": {
            module: {
                "kind": linear.kind,
                "out": linear.entry.shape[0],
                "in": linear.entry.shape[1],
                "rank": linear.entry.rank,
                "alpha": None if linear.strength is None else linear.strength.alpha,
                "alpha_from": None if linear.strength is None else linear.strength.source,
                "scale": None if linear.strength is None else _number(linear.strength.scale),
                "norm": _number(linear.norm),
                "as_lora": None if linear.cost is None else {"rank": linear.cost.rank, "error": linear.cost.relative},
            }
            for module, linear in found.linears.items()
        },
    }


def _number(value: float | None) -> float | str | None:
    """A number that JSON can hold; "overflow" where float64 cannot."""
    return value if value is None or isfinite(value) else "overflow"


def _fits(args: argparse.Namespace) -> Fits:
    """The backbone of the arguments. Raises CloraError where there is none of that name, or it finds a mistake."""
    if (args.world or args.with_files or args.sets) and args.recipe is None:
        raise CloraError("--world, --with and --set change the recipe of --recipe, and there is none")
    from clora.plugin_system.discovery import discover

    catalogue = discover()  # without a backbone too: a plugin may know the file's layout
    if args.backbone is None and args.recipe is None:
        return Fits("", None)
    if args.recipe is not None:
        from clora.config.load import load_recipe

        name = f"{args.recipe.name}'s backbone"
        loaded = load_recipe(args.recipe, args.with_files, args.sets, catalogue, world=args.world)
        return _checked(name, loaded.recipe.backbone)
    name = str(args.backbone)
    try:
        return _checked(name, catalogue.find("backbone", name).cls())
    except TypeError as error:
        raise CloraError(
            f"backbone {quoted(name)} needs settings ({reason(error)}); give a recipe with --recipe"
        ) from error


def _checked(name: str, backbone: Backbone) -> Fits:
    from clora.contracts.component import Checked

    problems = list(backbone.check()) if isinstance(backbone, Checked) else []
    if problems:
        raise CloraError("\n".join(f"{name}: {problem}" for problem in problems))
    return Fits(name, backbone.shapes())

"""`clora schema`: the JSON Schema of recipes with the installed plugins, for editors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from clora.files.atomic import write_atomic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", type=Path, help="the file to write (default: print)")


def run(args: argparse.Namespace) -> int:
    """Print or write the schema; what broken plugins would have given is not in it, and `clora plugins` tells them."""
    from clora.plugin_system.discovery import discover
    from clora.plugin_system.json_schema import recipe_schema

    text = json.dumps(recipe_schema(discover()), indent=1) + "\n"
    if args.out is None:
        print(text, end="")
    else:
        write_atomic(args.out, text)
    return 0

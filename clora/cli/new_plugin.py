"""`clora new-plugin NAME --kind KIND`: a distribution of your own, with a working component and its tests."""

from __future__ import annotations

import argparse
from pathlib import Path

from clora.errors import shown
from clora.plugin_system.new_plugin import KINDS, write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", metavar="NAME", help="the distribution's name, such as clora-huber-loss")
    parser.add_argument("--kind", choices=KINDS, default="loss", help="what it gives (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="FOLDER", help="where its folder goes (default: here)"
    )


def run(args: argparse.Namespace) -> int:
    """Write it, and say what to do next."""
    folder = write(args.name, args.kind, args.out)
    print(f'{shown(folder)}: next, cd {shown(folder)} && pip install -e ".[test]" && pytest')
    return 0

"""`clora plugins`: what became of every installed plugin, and the components it gives."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from clora.catalogue import Catalogue, Plugin, Registered
from clora.errors import CloraError, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.add_argument(
        "--load", action="store_true", help="import every component too, as a recipe that uses it would"
    )


def run(args: argparse.Namespace) -> int:
    """Print the list; the exit code is 1 where a plugin is broken or, with --load, a component of it."""
    from clora.plugins import discover

    catalogue = discover()
    print(as_json(catalogue) if args.json else as_text(catalogue))
    broken = [problem for component in catalogue.components if args.load for problem in _problems(component)]
    for problem in broken:
        print(problem, file=sys.stderr)
    return int(bool(broken) or any(plugin.state == "broken" for plugin in catalogue.plugins))


def _problems(component: Registered) -> Iterator[str]:
    """What keeps a component from being used; nothing where its class is there."""
    try:
        _ = component.cls
    except CloraError as error:
        yield printable(str(error))


def as_json(catalogue: Catalogue) -> str:
    """The list for programs."""
    return json.dumps(
        [
            {
                "plugin": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "state": plugin.state,
                "reason": plugin.reason or None,
                "components": _by_kind(plugin),
                "observes": [observer.hook for observer in plugin.observers],
            }
            for plugin in catalogue.plugins
        ],
        indent=2,
    )


def as_text(catalogue: Catalogue) -> str:
    """The list for people."""
    if not catalogue.plugins:
        return "no plugin is installed: no distribution has an entry point in the group clora.plugins"
    return "\n".join(line for plugin in catalogue.plugins for line in _lines(plugin))


def _lines(plugin: Plugin) -> Iterator[str]:
    yield f"{plugin.name:<16} {plugin.state:<8} {plugin.distribution} {plugin.version}"
    if plugin.reason:
        yield f"    {plugin.reason}"
    for kind, names in _by_kind(plugin).items():
        yield f"    {kind + ':':<13} {', '.join(names)}"
    if plugin.observers:
        yield f"    {'observes:':<13} {', '.join(observer.hook for observer in plugin.observers)}"


def _by_kind(plugin: Plugin) -> dict[str, list[str]]:
    kinds = dict.fromkeys(component.kind for component in plugin.components)
    return {kind: [c.name for c in plugin.components if c.kind == kind] for kind in kinds}

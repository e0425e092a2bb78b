"""`clora plugins`: what became of every installed plugin, and the components it gives."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from textwrap import wrap

from clora.config.key_docs import paragraphs_of
from clora.errors import CloraError, hint, printable, quoted
from clora.plugin_system.catalogue import Catalogue, Plugin, Registered
from clora.plugin_system.described_keys import described_keys

#: columns of a sentence
WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="tell the keys of the components of this name")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.add_argument(
        "--load", action="store_true", help="import every component too, as a recipe that uses it would"
    )


def run(args: argparse.Namespace) -> int:
    """Print the list; the exit code is 1 where a plugin is broken or, with --load, a component of it."""
    from clora.plugin_system.discovery import discover

    catalogue = discover()
    if args.names:
        print("\n\n".join(text for name in args.names for text in described_components(catalogue, name)))
        return 0
    print(as_json(catalogue) if args.json else as_text(catalogue))
    broken = [problem for component in catalogue.components if args.load for problem in _problems(component)]
    for problem in broken:
        print(problem, file=sys.stderr)
    return int(bool(broken) or any(plugin.state == "broken" for plugin in catalogue.plugins))


def described_components(catalogue: Catalogue, name: str) -> Iterator[str]:
    """Every component of a name, or of a plugin of this name, with its keys. Raises CloraError where there is none."""
    found = [c for c in catalogue.components if name in (c.name, c.plugin, f"{c.distribution}:{c.name}")]
    if not found:
        known = {word for c in catalogue.components for word in (c.name, c.plugin)}
        raise CloraError(f"no component or plugin is named {quoted(name)}{hint(name, known)}")
    for component in found:
        yield "\n".join([f"{component.kind}: {component.owner}", *_keys(component.cls)])


def _keys(cls: type) -> Iterator[str]:
    """What the class is, and a line for every key: type, bounds, default; its sentence under it."""
    for paragraph in paragraphs_of(cls):
        yield from wrap(paragraph, WIDTH, initial_indent="    ", subsequent_indent="    ")
    for key in described_keys(cls):
        bounds = f", {key.bounds}" if key.bounds else ""
        default = "required" if key.default is None else f"default {key.default}"
        yield f"    {key.name}: {key.type}{bounds}; {default}"
        yield from wrap(key.meaning, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)


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
                "observes": [each.hook for each in plugin.lifecycle],
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
    if plugin.lifecycle:
        yield f"    {'observes:':<13} {', '.join(each.hook for each in plugin.lifecycle)}"


def _by_kind(plugin: Plugin) -> dict[str, list[str]]:
    kinds = dict.fromkeys(component.kind for component in plugin.components)
    return {kind: [c.name for c in plugin.components if c.kind == kind] for kind in kinds}

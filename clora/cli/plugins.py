"""`clora plugins`: what became of every installed plugin, and the components and commands it gives."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from textwrap import wrap

from clora.cli.calling import equip
from clora.config.key_docs import paragraphs_of
from clora.errors import CloraError, hint, printable, quoted
from clora.plugin_system.catalogue import Catalogue, Plugin
from clora.plugin_system.commands import RegisteredCommand, ambiguous
from clora.plugin_system.described_keys import described_keys

#: columns of a sentence
WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="tell the keys of the components of this name, or a command's arguments",
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.add_argument(
        "--load", action="store_true", help="import every component and command too, as their use would"
    )


def run(args: argparse.Namespace) -> int:
    """Print the list; the exit code is 1 where a plugin is broken or, with --load, a component of it."""
    from clora.plugin_system.discovery import discover

    catalogue = discover()
    if args.names:
        print("\n\n".join(text for name in args.names for text in described_offers(catalogue, name)))
        return 0
    print(as_json(catalogue) if args.json else as_text(catalogue))
    broken = list(_load_problems(catalogue)) if args.load else []
    for problem in broken:
        print(problem, file=sys.stderr)
    return int(bool(broken) or any(plugin.state == "broken" for plugin in catalogue.plugins))


def described_offers(catalogue: Catalogue, name: str) -> Iterator[str]:
    """Every component of a name with its keys, every command with its arguments; or all that a plugin of it gives.

    Raises CloraError where there is none.
    """
    offers = (*catalogue.components, *catalogue.commands)
    found = [each for each in offers if name in (each.name, each.plugin, f"{each.distribution}:{each.name}")]
    if not found:
        known = {word for each in offers for word in (each.name, each.plugin)}
        raise CloraError(f"no component, command or plugin is named {quoted(name)}{hint(name, known)}")
    for each in found:
        if isinstance(each, RegisteredCommand):
            yield "\n".join([f"commands: {each.owner}", *_arguments(each)])
        else:
            yield "\n".join([f"{each.kind}: {each.owner}", *_keys(each.cls)])


def _arguments(command: RegisteredCommand) -> Iterator[str]:
    """What the command does, and its arguments as its own help has them."""
    parser = argparse.ArgumentParser(f"clora {command.name}", add_help=False, description=f"{command.command.help}.")
    equip(parser, command.command, command)
    yield from (f"    {line}".rstrip() for line in parser.format_help().splitlines())


def _keys(cls: type) -> Iterator[str]:
    """What the class is, and a line for every key: type, bounds, default; its sentence under it."""
    for paragraph in paragraphs_of(cls):
        yield from wrap(paragraph, WIDTH, initial_indent="    ", subsequent_indent="    ")
    for key in described_keys(cls):
        bounds = f", {key.bounds}" if key.bounds else ""
        default = "required" if key.default is None else f"default {key.default}"
        yield f"    {key.name}: {key.type}{bounds}; {default}"
        yield from wrap(key.meaning, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _load_problems(catalogue: Catalogue) -> Iterator[str]:
    """What keeps components and commands from being used; nothing where every class and module is there."""
    for component in catalogue.components:
        try:
            _ = component.cls
        except CloraError as error:
            yield printable(str(error))
    for command in catalogue.commands:
        try:
            list(_arguments(command))
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
                "commands": [command.name for command in plugin.commands],
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
    lines = [line for plugin in catalogue.plugins for line in _lines(plugin)]
    return "\n".join([*lines, *_ambiguous_commands(catalogue)])


def _ambiguous_commands(catalogue: Catalogue) -> Iterator[str]:
    """A sentence for every name that several plugins give to a command."""
    for name in dict.fromkeys(command.name for command in catalogue.commands):
        matches = [command for command in catalogue.commands if command.name == name]
        if len(matches) > 1:
            yield f"warning: {ambiguous(matches)}"


def _lines(plugin: Plugin) -> Iterator[str]:
    yield f"{plugin.name:<16} {plugin.state:<8} {plugin.distribution} {plugin.version}"
    if plugin.reason:
        yield f"    {plugin.reason}"
    for kind, names in _by_kind(plugin).items():
        yield f"    {kind + ':':<13} {', '.join(names)}"
    if plugin.commands:
        yield f"    {'commands:':<13} {', '.join(command.name for command in plugin.commands)}"
    if plugin.lifecycle:
        yield f"    {'observes:':<13} {', '.join(each.hook for each in plugin.lifecycle)}"


def _by_kind(plugin: Plugin) -> dict[str, list[str]]:
    kinds = dict.fromkeys(component.kind for component in plugin.components)
    return {kind: [c.name for c in plugin.components if c.kind == kind] for kind in kinds}

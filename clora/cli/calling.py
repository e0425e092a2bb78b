"""From a registered command to a parser: its own arguments, --traceback, and --threads where it computes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from clora.contracts.command import Command, CommandModule
from clora.errors import CloraError, escaped, hint, nearest, quoted, reason
from clora.plugin_system.core_commands import clora_commands
from clora.process import threads

if TYPE_CHECKING:
    from clora.plugin_system.catalogue import Catalogue, Plugin
    from clora.plugin_system.commands import RegisteredCommand

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

#: missing plugins that a sentence about an unknown command names
MOST_SUSPECTS = 3
#: where the parsed arguments keep what carries them out; no argument can have this name
_RUN = "clora run"


def add_command(
    commands: Subparsers,
    command: Command,
    module: CommandModule | None,
    word: str | None = None,
    mark: str = "",
) -> None:
    """Add a command to argparse's subparsers; without its module it is a line of the help alone.

    `word` is what it is called by, where that is not its name; `mark` stands behind its help line.
    """
    line = command.help
    mark = escaped(mark).replace("%", "%%")  # to argparse % begins a placeholder; a command's own line has none
    parser = commands.add_parser(word or command.name, help=line + mark, description=f"{line[0].upper()}{line[1:]}.")
    if module is not None:
        equip(parser, command, module)


def equip(parser: argparse.ArgumentParser, command: Command, module: CommandModule) -> None:
    """Declare all of a command's arguments; what is parsed has its `run`, which sets the threads up first.

    The core's come first, so that a plugin that declares one of them again is told where it does.
    """
    parser.add_argument("--traceback", action="store_true", help="where in the code an error arose, too")
    if command.computes:
        threads.add_threads_argument(parser)
    module.add_arguments(parser)
    run = module.run
    if command.computes:  # before the command imports torch, which starts its pools as it finds the environment
        run = threads.with_threads(run, tells=not command.tells_threads)
    parser.set_defaults(**{_RUN: run})


def carried_out(args: argparse.Namespace) -> int:
    """Carry out the command that parsed these arguments, and return its exit code."""
    code: int = vars(args)[_RUN](args)
    return code


def add_plugins_commands(commands: Subparsers) -> None:
    """Add the help line of every plugin's command, with its distribution; of several of one name each by both."""
    from clora.plugin_system.discovery import discover

    found = discover().commands
    names = [command.name for command in found]
    for each in found:
        word = each.name if names.count(each.name) == 1 else f"{each.distribution}:{each.name}"
        if word not in commands.choices:  # two plugins of one distribution may give it
            add_command(commands, each.command, None, word, f" ({each.distribution})")


def plugins_command(word: str) -> RegisteredCommand:
    """The plugin's command that a word means. Raises CloraError where no plugin, or more than one, gives it."""
    from clora.plugin_system.commands import find_command
    from clora.plugin_system.discovery import discover

    catalogue = discover()
    found = find_command(catalogue.commands, word)
    if found is None:
        raise CloraError(_unknown(catalogue, word))
    return found


def _unknown(catalogue: Catalogue, word: str) -> str:
    """The sentence about a word that no command has: the nearest, and the plugins that may have given it."""
    names = {command.name for command in (*clora_commands(), *catalogue.commands)}
    near = nearest(word, names)
    suspects = [plugin for plugin in catalogue.plugins if _may_have_given(plugin, word, unlike=near is None)]
    told = [f"plugin {plugin} is {plugin.state}: {reason(plugin.reason)}" for plugin in suspects[:MOST_SUSPECTS]]
    more = len(suspects) - len(told)
    rest = [f"{more} more are missing, see `clora plugins`"] if more else []
    return "; ".join([f"no command is named {quoted(word)}{hint(word, names)}", *told, *rest])


def _may_have_given(plugin: Plugin, word: str, *, unlike: bool) -> bool:
    """True for a missing plugin of a like name or whose reason names it; any, where it is like no known command."""
    distribution, _, name = word.rpartition(":")
    if plugin.state == "loaded" or distribution not in ("", plugin.distribution):
        return False
    if quoted(name) in plugin.reason:
        return True
    return unlike or bool(distribution) or nearest(name, [plugin.name, plugin.distribution]) is not None

"""For the tests of a command: call it as `clora` does, and look for what would be wrong with it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from clora.cli.calling import carried_out, equip
from clora.contracts.command import Command
from clora.errors import CloraError, reason
from clora.plugin_system.commands import RegisteredCommand
from clora.plugin_system.core_commands import clora_commands
from clora.testing.heavy_imports import heavy_imports


def call(command: Command, *words: str) -> int:
    """The exit code of `clora NAME WORDS`; nothing has to be installed.

    Raises CloraError where `clora` would print one, and SystemExit with 2 for words that the command does not take.
    """
    registered = RegisteredCommand("tested", "tested", "0", command)
    parser = argparse.ArgumentParser(f"clora {command.name}")
    equip(parser, command, registered)
    return carried_out(parser.parse_args(words))


def command_problems(command: Command, *, checks_imports: bool = True) -> list[str]:
    """Everything that keeps a command from being registered and called, a sentence each."""
    problem = command.problem()
    if problem is not None:
        return [problem]
    return [*_taken(command), *_unusable(command), *(_imports(command) if checks_imports else ())]


def _taken(command: Command) -> Iterator[str]:
    if command.name in {ours.name for ours in clora_commands()}:
        yield f"{command.name!r} is a command of clora's own; choose another"
    if command.help[0].isupper() or command.help.endswith("."):
        yield f"its help begins with a small letter and has no full stop at its end, not {command.help!r}"


def _unusable(command: Command) -> Iterator[str]:
    """A module that is none, or arguments that argparse or the core refuse."""
    parser = argparse.ArgumentParser(f"clora {command.name}")
    try:
        equip(parser, command, RegisteredCommand("tested", "tested", "0", command))
        parser.format_help()
    except CloraError as error:
        yield str(error)
    except (TypeError, ValueError, KeyError) as error:  # a % in the help of an argument, which argparse formats
        yield f"the help of an argument cannot be printed: {type(error).__name__}: {reason(error)}"


def _imports(command: Command) -> Iterator[str]:
    """What its module brings into memory before its words are read."""
    heavy = heavy_imports(command.module)
    if heavy:
        yield f"importing {command.module} imports {heavy}; import them in its run: wrong words are told at once then"

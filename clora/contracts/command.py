"""A command of `clora`: what registers it, and what its module must have."""

from __future__ import annotations

import argparse
import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

from attrs import frozen

from clora.errors import CloraError, quoted, reason

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
#: characters of a command's name and of its line in `clora --help`
MOST_NAME, MOST_HELP = 40, 200
MEMBERS = ("add_arguments", "run")


class CommandModule(Protocol):
    """The module of a command; it is imported when the command is called."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments; `--traceback` and, where it computes, `--threads` are added by the core."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Carry the command out and return the exit code. Raises CloraError for what the person can put right."""
        ...


@frozen
class Command:
    """`clora NAME`: its line in `clora --help`, and the module that carries it out (see CommandModule)."""

    name: str  # what is typed after `clora`: small letters, digits and single hyphens
    help: str  # what it does, as a clause that begins with a small letter and has no full stop
    module: str  # such as "clora_mine.command"; imported when the command is called
    computes: bool = False  # it imports torch: `--threads` is among its arguments and takes effect before that
    tells_threads: bool = False  # it says itself how many threads compute; else the core says it at the start

    def problem(self) -> str | None:
        """What is wrong with it, as far as that is known without importing anything but the module's packages."""
        if not isinstance(self.name, str) or len(self.name) > MOST_NAME or not _NAME.fullmatch(self.name):
            return f"{quoted(self.name)} is no name of a command; small letters, digits and single hyphens make one"
        if not isinstance(self.help, str) or not _one_line(self.help):
            return f"the help of {quoted(self.name)} must be one line of 1 to {MOST_HELP} characters without %"
        if not isinstance(self.module, str) or not _MODULE.fullmatch(self.module):
            return f"the module of {quoted(self.name)} must be written as package.module, not {quoted(self.module)}"
        try:
            there, why = find_spec(self.module) is not None, ""
        except (Exception, SystemExit) as error:  # of the package above, which is someone else's
            there, why = False, f" ({type(error).__name__}: {reason(error)})"
        return None if there else f"the module of {quoted(self.name)} is not there: {quoted(self.module)}{why}"

    def load(self) -> CommandModule:
        """The module, imported now. Raises CloraError where it cannot be imported or is none."""
        try:
            module = import_module(self.module)
        except (Exception, SystemExit) as error:  # someone else's module, which may do anything when it is imported
            raise CloraError(f"cannot import {quoted(self.module)}: {type(error).__name__}: {reason(error)}") from error
        for name in MEMBERS:
            if not _takes_one(vars(module).get(name)):
                raise CloraError(f"the module {quoted(self.module)} has no function {name} of one argument")
        return cast(CommandModule, module)


def _one_line(text: str) -> bool:
    return 0 < len(text.strip()) <= len(text) <= MOST_HELP and text.isprintable() and "%" not in text


def _takes_one(function: Any) -> bool:
    """True for what can be called with one argument."""
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):  # no function, another number of arguments, or none that Python knows
        return False
    return True

"""The plugins' commands: whose each one is, which one a word means, and what is told where one cannot be used."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import frozen

from clora.contracts.command import Command, CommandModule
from clora.errors import CloraError, quoted
from clora.plugin_system.guard import Owners, came
from clora.plugin_system.origin import Origin

T = TypeVar("T")


@frozen
class RegisteredCommand(Origin):
    """A command with its origin."""

    command: Command

    @property
    def name(self) -> str:
        """What follows `clora` on the command line."""
        return self.command.name

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Import its module and let it declare its arguments. Raises CloraError, naming the plugin, where it cannot."""
        module = self._module()
        self._guarded(lambda: module.add_arguments(parser))

    def run(self, args: argparse.Namespace) -> int:
        """Carry it out. Raises ComponentError, naming the plugin, for whatever it raises or returns but an exit code.

        Errors that are meant for a person, and the system's own about files, pass as they are.
        """
        module = self._module()
        code = self._guarded(lambda: module.run(args))
        if not isinstance(code, int):
            raise self._owners().error(self._place, f"its run gave {came(code)}; expected the exit code, an int")
        return code

    def _module(self) -> CommandModule:
        try:
            return self.command.load()
        except CloraError as error:
            raise CloraError(f"the command {quoted(self.name)} of plugin {self.giver} is broken: {error}") from error

    @property
    def _place(self) -> str:
        return f"clora {self.name}"

    def _owners(self) -> Owners:
        return Owners({self._place: self.owner})

    def _guarded(self, call: Callable[[], T]) -> T:
        passing: OSError | SystemExit | None = None
        with self._owners().calling(self._place):
            try:
                return call()
            except (OSError, SystemExit) as error:  # a file's, told by its path; argparse's and a command's own end
                passing = error
        raise passing


def find_command(commands: Sequence[RegisteredCommand], word: str) -> RegisteredCommand | None:
    """The command that a person means by `clora NAME` or `clora DISTRIBUTION:NAME`; None where there is none.

    Raises CloraError where several plugins give one of this name.
    """
    distribution, _, name = word.rpartition(":")
    matches = [c for c in commands if c.name == name and distribution in ("", c.distribution)]
    if len(matches) > 1:
        raise CloraError(ambiguous(matches))
    return matches[0] if matches else None


def ambiguous(matches: Sequence[RegisteredCommand]) -> str:
    """The sentence about several commands of one name, and how to choose."""
    name = quoted(matches[0].name)
    owners = " and ".join(match.giver for match in matches)
    distributions = sorted({match.distribution for match in matches})
    if len(distributions) < len(matches):
        return f"the command {name} is given by the plugins {owners}; one of them must be blocked"
    choice = " or ".join(f"clora {distribution}:{matches[0].name}" for distribution in distributions)
    return f"the command {name} is given by the plugins {owners}; write {choice}"

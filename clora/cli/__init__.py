"""The command line: `clora COMMAND`; a command's module is imported when it is called.

A plugin is imported where `clora` does not know the word itself, where its help is printed, and by the commands that
need one.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from clora.cli.arguments import check_lengths, check_words
from clora.cli.calling import add_command, add_plugins_commands, carried_out, plugins_command
from clora.cli.recipes import check_paths
from clora.contracts.version import __version__
from clora.errors import CloraError, printable, reason, shown
from clora.plugin_system.core_commands import clora_commands
from clora.process.stopping import stoppable
from clora.process.terminal import outlive_the_terminal

#: loggers whose warnings at import are of kernels and files that nothing here uses: diffusers and peft import torchao
#: and bitsandbytes wherever they are installed, whether a recipe asks for them or not
CHATTER = ("torchao", "bitsandbytes.backends", "diffusers.quantizers", "torch.utils._pytree")

BROKEN_PIPE = 141  # what shells report for a process whose reader went away


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; mistakes of the person who typed it are told without a traceback.

    SIGINT, SIGTERM and SIGHUP end it in order, with 128 + their number. Without `argv` the process is the command's
    own: it then ends at the latest two seconds after the signal, or after the training cycle in which it came.
    """
    return stoppable(lambda: _called(argv), owns_process=argv is None)


def _called(argv: Sequence[str] | None) -> int:
    if argv is None:
        outlive_the_terminal()
    words = list(sys.argv[1:] if argv is None else argv)
    for name in CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        check_lengths(words)
        args = _parser(words).parse_args(words)
        check_paths(args)
        check_words(words)
        code = carried_out(args)
        sys.stdout.flush()
    except CloraError as error:
        if "--traceback" in words:
            traceback.print_exc()
        print(printable(str(error)), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Python flushes stdout once more at exit and would complain about it then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:  # of a path that nobody has looked at: too long, no right to look, a loop of links
        print(_refusal(error), file=sys.stderr)
        return CloraError.exit_code
    return code


def _refusal(error: OSError) -> str:
    """What the system refused, and of which path."""
    where = error.filename if isinstance(error.filename, str | os.PathLike) else ""
    why = reason(error.strerror or error)
    return f"{shown(os.fspath(where))}: {why}" if where else why


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that `words` names: of the others it knows name and help line only.

    Raises CloraError for a word that names no command, for one that names several, and for one that is broken.
    """
    parser = _Shell(prog="clora", description="Distil many effect LoRAs and few-step sampling into one LoRA.")
    parser.add_argument("--version", action="version", version=f"clora {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=argparse.ArgumentParser)
    called = next((word for word in words if not word.startswith("-")), None)
    ours = {command.name: command for command in clora_commands()}
    for command in ours.values():
        add_command(commands, command, command.load() if command.name == called else None)
    parser.listed = lambda: add_plugins_commands(commands)
    if called is not None and called == words[0] and called not in ours:
        found = plugins_command(called)
        add_command(commands, found.command, found, called)
    return parser


class _Shell(argparse.ArgumentParser):
    """`clora` itself: the plugins' commands are looked for when its help is printed, not whenever one is called."""

    listed: Callable[[], None] | None = None

    def format_help(self) -> str:
        """The help, which lists every command."""
        if self.listed is not None:
            self.listed()
        return super().format_help()

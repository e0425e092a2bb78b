"""The command line: `clora COMMAND`; a command's module is imported when it is called, and no plugin before that."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from clora.cli.arguments import check_lengths, check_words
from clora.cli.recipes import check_paths
from clora.contracts.version import __version__
from clora.errors import CloraError, printable, reason, shown
from clora.process import threads
from clora.process.stopping import stoppable
from clora.process.terminal import outlive_the_terminal

#: command -> its line in `clora --help`; the command is the module of this name
COMMANDS = {
    "run": "carry a recipe out, or go on where it was stopped",
    "prepare": "make all that a run needs before it trains, to look at first",
    "validate": "check a recipe, its data and its teachers without loading a model",
    "show": "print a recipe with every value and the place that gave it",
    "caption": "have a vision-language model describe every effect that has no caption yet",
    "plugins": "list the installed plugins and what they offer",
    "new-plugin": "write a plugin of your own: a distribution with a working component and its tests",
    "schema": "print the JSON Schema of recipes, with which editors complete and check them",
    "inspect": "tell what LoRA files hold, and which programs would get them wrong",
    "sample": "make pictures with a run's LoRA",
    "evaluate": "measure a run's LoRA again",
    "extend": "add effects to a finished LoRA, and say which old ones got worse",
    "export": "write a run's LoRA for other tools, or merge it into its base",
    "compare": "put several runs' results side by side",
}

#: commands that compute take --threads; True where the command does not say itself how many there are
COMPUTES = {"run": False, "prepare": False, "evaluate": False, "extend": False} | dict.fromkeys(
    ("caption", "sample", "export"), True
)

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
        code: int = args.run(args)
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
    """The parser of the command that `words` names: the others are known by their help line only."""
    parser = argparse.ArgumentParser(prog="clora", description="Distil many effect LoRAs into one few-step LoRA.")
    parser.add_argument("--version", action="version", version=f"clora {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    called = next((word for word in words if not word.startswith("-")), None)
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if name == called:
            module = importlib.import_module(f"clora.cli.{name.replace('-', '_')}")
            module.add_arguments(command)
            command.add_argument("--traceback", action="store_true", help="where in the code an error arose, too")
            command.set_defaults(run=module.run)
            if name in COMPUTES:  # before the command imports torch, which starts its pools as it finds the environment
                threads.add_threads_argument(command)
                command.set_defaults(run=threads.with_threads(module.run, tells=COMPUTES[name]))
    return parser

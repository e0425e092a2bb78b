"""The reference of commands: what each one prints for --help."""

from __future__ import annotations

import contextlib
import io
import os
import re

from clora.cli import main

#: columns of the help texts
WIDTH = "100"
_COMMAND = re.compile(r"^    ([a-z][\w:.-]*)", re.MULTILINE)


def commands_page() -> str:
    """Every command that `clora --help` lists, with its arguments and options."""
    overview = _help()
    sections = [f"\n## clora {name}\n\n```text\n{_help(name)}\n```" for name in _COMMAND.findall(overview)]
    return "\n".join(["# Commands\n", f"```text\n{overview}\n```", *sections])


def _help(*words: str) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH  # which argparse reads
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return out.getvalue().strip()

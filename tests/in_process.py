"""Commands carried out in the process of the tests, which has imported torch and its like already."""

from __future__ import annotations

import subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from clora import cli


def clora(*words: str) -> subprocess.CompletedProcess[str]:
    """Exit code, stdout and stderr of a command, as `subprocess.run` gives them of one in a process of its own."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = cli.main(list(words))
        except SystemExit as end:  # what argparse refuses
            code = end.code if isinstance(end.code, int) else 1
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

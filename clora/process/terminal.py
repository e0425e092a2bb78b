"""Standard streams that outlive the terminal: a command goes on when nobody can read its words any more."""

from __future__ import annotations

import errno
import io
import os
import sys


class _Forgiving(io.RawIOBase):
    """A file descriptor; what cannot be written for one of the reasons in `forgiven` is lost."""

    def __init__(self, descriptor: int, forgiven: frozenset[int]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._forgiven = forgiven

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data) -> int | None:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # as io.RawIOBase wants it told
            return None
        except OSError as error:
            if error.errno not in self._forgiven:
                raise
            return len(data)


def outlive_the_terminal() -> None:
    """Have stdout and stderr go on where their terminal has closed, and stderr where its reader has.

    A reader of stdout that goes away still ends the command: stdout is what the command is called for.
    """
    sys.stdout = _forgiving(sys.stdout, 0)
    sys.stderr = _forgiving(sys.stderr, errno.EPIPE)


def _forgiving(stream, also: int):
    """The same stream over a forgiving descriptor; one that is no file (a test's own, or none) stays."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    forgiven = {also, errno.EIO} if stream.isatty() else {also}
    raw = _Forgiving(stream.fileno(), frozenset(forgiven))
    return io.TextIOWrapper(
        # unbuffered (`python -u`), as Python makes them: text straight on the descriptor
        raw if stream.write_through else io.BufferedWriter(raw),  # pyright: ignore[reportArgumentType]
        encoding=stream.encoding,
        errors=stream.errors,
        newline=None if os.name == "nt" else "\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )

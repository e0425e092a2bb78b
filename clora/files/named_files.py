"""Files that a data file names: regular files inside the folders that the recipe names, links followed.

A list, a bank or a folder of pictures may come from elsewhere; what it names must not make a run read, or quote, any
other file of the machine, nor wait for ever at a named pipe.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from clora.errors import CloraError, quoted
from clora.files.untrusted_json import text_problem

#: characters of a path: Linux takes no longer one, and looking one up part by part takes time that grows quadratically
MAX_PATH = 4096
_NO_FILE = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is no file but a named pipe"),
    (stat.S_ISSOCK, "is no file but a socket"),
    (stat.S_ISCHR, "is no file but a device"),
    (stat.S_ISBLK, "is no file but a device"),
)


class OutsideError(CloraError, ValueError):
    """A path that leads out of the folders that it may lead into."""

    def __init__(self, name: str, *, linked: bool) -> None:
        super().__init__(f"{quoted(name)} leads out of its folder{', by a link' if linked else ''}")
        self.linked = linked  # by a link alone: `follow_links: true` would follow it


class UnusablePathError(CloraError, ValueError):
    """A text that no path can be: too long, with a zero byte, a loop of links."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{quoted(name)} is no usable path")


def located(name: str | Path, folders: Sequence[Path], *, follow_links: bool = False) -> Path:
    """The file that `name` means, relative to the first of the `folders` that it does not lead out of.

    The folders are resolved. A path whose links stay inside is given with the links followed. With `follow_links`, a
    link may lead anywhere; so may one of the Hugging Face cache that leads to a blob of the same repository: such a
    path is given as it is written, links in it.
    Raises OutsideError where it leads out of all the folders, UnusablePathError for what is no path.
    """
    text = os.fspath(name)
    if text_problem(text, MAX_PATH) is not None:
        raise UnusablePathError(text)
    linked = False
    for folder in folders:
        try:
            given = folder / text
            real = given.resolve()
        except (OSError, ValueError, RuntimeError):  # a loop of links, a name too long
            raise UnusablePathError(text) from None
        if real.is_relative_to(folder):
            return real
        written = Path(os.path.normpath(given))
        if written.is_relative_to(folder):
            if follow_links or _is_cached_blob(real, folder):
                return written
            linked = True
    raise OutsideError(text, linked=linked)


def _is_cached_blob(real: Path, folder: Path) -> bool:
    """True for `models--x/blobs/y`, seen from the folder `models--x/snapshots/z` or from one in it."""
    for parent in (folder, *folder.parents):
        if parent.parent.name == "snapshots" and parent.parent.parent.name.startswith(("models--", "datasets--")):
            return real.is_relative_to(parent.parent.parent / "blobs")
    return False


def not_a_file(path: Path) -> str | None:
    """Why a path is no regular file, in words that follow its name; None where it is one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or 'it is no usable path'}"
    return next((words for is_kind, words in _NO_FILE if is_kind(mode)), None)


def open_file(path: Path) -> BinaryIO:
    """A regular file, open for reading. Raises OSError; for what is no file at once, where opening it would wait."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(None, not_a_file(path) or "is no file", os.fspath(path))
    return os.fdopen(handle, "rb")

"""Atomic writes: a reader finds the old file or the new one, never a torn one, whatever kills the writer."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from clora.errors import CloraError

_PLAIN = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "the file is larger than allowed",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "a folder has that name",
}


@contextmanager
def told_plainly(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into a CloraError that names the path and the reason."""
    try:
        yield
    except CloraError:
        raise
    except Exception as error:
        reason = _PLAIN.get(_errno(error))
        if reason is None:
            raise
        raise CloraError(f"cannot write {path}: {reason}") from error


def _errno(error: Exception) -> int:
    """The operating system's number; safetensors' own error is no OSError and has it in its words alone."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else 0


def sync_folder(folder: Path) -> None:
    """Make a rename inside a folder survive a power cut (a no-op where folders cannot be opened)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path, ending: str) -> Path:
    """A hidden name beside a path that no other thread, process or machine takes."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}.{ending}")


def write_atomic_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a temporary file beside `path`, then put it in place in one step.

    Raises CloraError where the folder cannot be written or the disk is full.
    """
    with told_plainly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path, "tmp")
        try:
            write(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file in one step."""
    raw = data.encode() if isinstance(data, str) else data

    def write(temporary: Path) -> None:
        temporary.write_bytes(raw)

    write_atomic_with(path, write)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` make a folder's files under a temporary name, then put the whole folder in place in one step."""
    with told_plainly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, old = _beside(path, "tmp"), _beside(path, "old")
        temporary.mkdir()
        try:
            fill(temporary)
            for made in temporary.rglob("*"):
                if made.is_dir():
                    sync_folder(made)
                    continue
                with made.open("rb") as written:
                    os.fsync(written.fileno())
            sync_folder(temporary)
            if path.exists():  # moved aside whole: a kill while it is removed must not leave a torn one in place
                path.rename(old)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        sync_folder(path.parent)

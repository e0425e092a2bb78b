"""A hash of the source that a component comes from: a run depends on it as on the recipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path

#: source files of one package; of one with more the component's own module is looked at alone
MOST_FILES = 2000


def source_digest(module: str) -> str:
    """The hash of the package that a module belongs to, its tests left out; empty where there is no source."""
    whole = _of_package(module.partition(".")[0])
    return _of_module(module) if whole is None else whole


@cache
def _of_package(package: str) -> str | None:
    """The hash of a package's source; None of a single module, and of a package with more than MOST_FILES."""
    folders = [Path(folder) for folder in getattr(sys.modules.get(package), "__path__", ())]
    files = sorted(
        (file.relative_to(folder).as_posix(), file)
        for folder in folders
        for file in folder.rglob("*.py")
        if "tests" not in file.relative_to(folder).parts
    )
    return _digest(files) if 0 < len(files) <= MOST_FILES else None


def _of_module(module: str) -> str:
    own = getattr(sys.modules.get(module), "__file__", None)
    return "" if own is None else _digest([(Path(own).name, Path(own))])


def _digest(files: Sequence[tuple[str, Path]]) -> str:
    """The hash of files and of what they are called; empty where none can be read."""
    hasher = blake2b(digest_size=8)
    read = 0
    for name, file in files:
        try:
            raw = file.read_bytes()
        except OSError:  # it has been imported, and is gone since
            continue
        hasher.update(f"{name}\0{len(raw)}\0".encode() + raw)
        read += 1
    return hasher.hexdigest() if read else ""

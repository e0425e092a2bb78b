"""What the recipe gives as `effects` and `general`, read as sheets: files, folders, or one of them for every effect."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from attrs import evolve, frozen

from clora.api import Split
from clora_pictures.folders import LISTS, SOURCES, linked_out, read_folder, read_pair, told, visible, walked
from clora_pictures.rows import SPLITS, Asked, Sheet, read_list


@frozen
class Pair:
    """Two folders whose pictures of one name belong together; `target` may be left out."""

    source: Path
    target: Path | None = None


#: a list, a folder, or a pair of folders
Place = Path | Pair
#: the sources of all effects: a list or a folder that names them, or a place for each
Effects = Path | Mapping[str, Place]


def places(given: Effects | Place | None, stream: Asked) -> Iterator[tuple[Place, Asked]]:
    """Every list and folder that the recipe gives, and what it is read for."""
    if isinstance(given, Mapping):
        for effect, place in given.items():
            yield place, evolve(stream, effect=effect)
    elif isinstance(given, Path) and stream.stream == "effects" and given.is_dir():
        yield from _every_effect(given, stream)
    elif given is not None:
        yield given, stream


def _every_effect(folder: Path, stream: Asked) -> Iterator[tuple[Place, Asked]]:
    """A folder of all effects: a list in it says which, or every folder in it is one."""
    split_lists: list[Split] = [split for split in SPLITS if any((folder / split / name).is_file() for name in LISTS)]
    if split_lists:
        yield from ((folder / split, evolve(stream, split=split, root=folder)) for split in split_lists)
        return
    try:
        names = visible(folder)
    except OSError:
        names = []
    inside = [name for name in names if (folder / name).is_dir()]
    if not inside or {*names} & {*LISTS} or {*inside} & {*SOURCES, "target"}:
        yield folder, stream
        return
    yield from ((folder / name, evolve(stream, effect=name, root=folder)) for name in inside)


def sheets(place: Place, asked: Asked) -> tuple[Sheet, ...]:
    """The rows and mistakes of a list or folder, read again only once it has changed."""
    return _read(place, asked, _state(place))


@lru_cache(maxsize=1024)
def _read(place: Place, asked: Asked, state: bytes) -> tuple[Sheet, ...]:
    """`state` is that of the files that the rows belong to."""
    if asked.root is not None and isinstance(place, Path) and (out := linked_out(place, asked)) is not None:
        return (told(place.parent, out),)
    if isinstance(place, Pair):
        return tuple(read_pair(place.source, place.target, asked))
    if not place.is_dir():
        return (read_list(place, asked),)
    found = read_folder(place, asked)
    if asked.stream == "effects" and asked.effect is None and any(not row.effect for s in found for row in s.rows):
        return (told(place, "is one effect's folder; write `effects: {the effect's name: this folder}`"),)
    return tuple(found)


def folders(place: Place) -> list[Path]:
    """The folders that the pictures of a list or folder lie in, resolved."""
    if isinstance(place, Pair):
        return [folder.resolve() for folder in (place.source, place.target) if folder is not None]
    return [(place if place.is_dir() else place.parent).resolve()]


def _state(place: Place) -> bytes:
    """A hash of all names in the folders, and of size and time of whatever is read of them: lists and captions."""
    found = blake2b(digest_size=16)
    if isinstance(place, Path) and not place.is_dir():
        found.update(_stamp(place))
        return found.digest()
    roots = [place] if isinstance(place, Path) else [place.source, *([] if place.target is None else [place.target])]
    for root in roots:
        for at, _, names in walked(root):
            found.update("\0".join([at, *sorted(names), ""]).encode(errors="surrogateescape"))
            for name in names:
                if name in LISTS or name.endswith(".txt"):
                    found.update(_stamp(os.path.join(at, name)))
    return found.digest()


def _stamp(path: str | Path) -> bytes:
    try:
        state = os.stat(path)
    except OSError:
        return b"none"
    return f"{os.fspath(path)!r} {state.st_mtime_ns} {state.st_size}\n".encode()

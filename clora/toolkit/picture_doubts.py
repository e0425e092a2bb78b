"""What is doubtful about pairs of pictures: swapped, the same picture twice, a training picture among the tests.

Two pictures are the same where their `identity` is: a path and its bytes without decoding, pixels with.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from clora.contracts.data import PictureRow
from clora.errors import quoted
from clora.files.named_files import open_file

#: doubts of one kind that are told, then how many more there are
SHOWN = 5
_PART = 1 << 16


def doubts(rows: Sequence[PictureRow], same: Mapping[Path, Hashable]) -> Iterator[str]:
    """What is doubtful, one sentence each that begins with a place; `same` has the identity of every picture.

    A picture that `same` lacks is like no other. Told: a source that is its own target; a target of one line that is
    a source of another; a target that several sources share; one picture in train and test of one effect. Not told: an
    effect whose pairs are all swapped and share no picture with one another or with other effects.
    """
    for told in (_unchanged(rows, same), _swapped(rows, same), _shared_targets(rows, same), _in_both(rows, same)):
        found = list(told)
        yield from found[:SHOWN]
        if len(found) > SHOWN:
            yield f"{found[SHOWN].split(': ', 1)[0]}: {len(found) - SHOWN:,} more warnings like the one before"


def _unchanged(rows: Iterable[PictureRow], same: Mapping[Path, Hashable]) -> Iterator[str]:
    for row in rows:
        if row.target is not None and _identity(row.source, same) == _identity(row.target, same):
            pair = _both(row.source, row.target)
            yield f"{row.place}: source and target are the same picture, {pair}; an edit changes it"


def _swapped(rows: Iterable[PictureRow], same: Mapping[Path, Hashable]) -> Iterator[str]:
    """Lines whose target is a source elsewhere, as sources of several effects are and targets are not.

    An effect that edits what another effect made (a chain) looks the same.
    """
    rows = [row for row in rows if row.target is not None]
    sources: dict[Hashable, PictureRow] = {}
    for row in rows:
        sources.setdefault(_identity(row.source, same), row)
    for row in rows:
        assert row.target is not None
        other = sources.get(_identity(row.target, same))
        if other is None or _identity(row.source, same) == _identity(row.target, same):
            continue
        yield (
            f"{row.place}: the target {_name(row.target)}{_of(row)} is the source of {other.place}{_of(other)}; "
            "are source and target swapped in one of them?"
        )


def _shared_targets(rows: Iterable[PictureRow], same: Mapping[Path, Hashable]) -> Iterator[str]:
    """Targets that several different sources of one effect have: edits of different pictures differ."""
    found: dict[tuple[str, Hashable], dict[Hashable, PictureRow]] = defaultdict(dict)
    for row in rows:
        if row.target is not None and row.effect:
            key = (row.effect, _identity(row.target, same))
            found[key].setdefault(_identity(row.source, same), row)
    for by_source in found.values():
        if len(by_source) > 1:
            first = next(iter(by_source.values()))
            assert first.target is not None
            yield (
                f"{first.place}: {len(by_source)} different sources{_of(first)} have the same target, "
                f"{_name(first.target)}; are source and target swapped?"
            )


def _in_both(rows: Iterable[PictureRow], same: Mapping[Path, Hashable]) -> Iterator[str]:
    """Sources of an effect (of an instruction, in the general stream) that train and test both read."""
    first: dict[tuple[str, str, Hashable], PictureRow] = {}
    for row in rows:
        if row.split is None:
            continue
        key = (row.effect, "" if row.effect else row.instruction, _identity(row.source, same))
        other = first.setdefault(key, row)
        if other.split != row.split:
            train, test = (row, other) if row.split == "train" else (other, row)
            yield (
                f"{test.place}: the test picture {_name(test.source)}{_of(test)} is the training picture "
                f"{_name(train.source)} of {train.place}: what is measured on it says nothing of new pictures"
            )


def same_bytes(paths: Iterable[Path]) -> dict[Path, Hashable]:
    """An identity for every file whose bytes another one has too; sizes are compared first, then the ends, then all.

    Files that cannot be read have none.
    """
    groups: Iterable[list[Path]] = [list(dict.fromkeys(paths))]
    for key in (_size, _ends, _whole):
        groups = [alike for group in groups for alike in _grouped(group, key)]
    return {path: number for number, group in enumerate(groups) for path in group}


def _grouped(paths: Sequence[Path], key: Callable[[Path], Hashable]) -> Iterator[list[Path]]:
    found: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            found[key(path)].append(path)
        except OSError:
            continue
    return (group for group in found.values() if len(group) > 1)


def _size(path: Path) -> Hashable:
    return os.stat(path).st_size


def _ends(path: Path) -> Hashable:
    """The first and last bytes: pictures without compression are all of one size."""
    with open_file(path) as file:
        head = file.read(_PART)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _PART))
        return blake2b(head + file.read(_PART), digest_size=16).digest()


def _whole(path: Path) -> Hashable:
    digest = blake2b(digest_size=16)
    with open_file(path) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.digest()


def _identity(path: Path, same: Mapping[Path, Hashable]) -> Hashable:
    return same.get(path, path)


def _name(path: Path) -> str:
    return quoted(path.name)


def _both(source: Path, target: Path) -> str:
    return _name(source) if source == target else f"{_name(source)} and {_name(target)}"


def _of(row: PictureRow) -> str:
    return f" of {quoted(row.effect)[1:-1]}" if row.effect else ""

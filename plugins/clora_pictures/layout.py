"""Where a dataset's pictures lie, looked up once for all effects: a thousand of them would look up a million places."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import define, field

from clora.api import OutsideError, PictureError, UnusablePathError, located, quoted
from clora_pictures.listings import Effects, Place, folders
from clora_pictures.rows import SPLITS, Asked, Row, Sheet


def layout_state(effects: Effects | None) -> tuple[int, ...]:
    """The times at which a folder of all effects, and those of its splits, got or lost a name."""
    if not isinstance(effects, Path):
        return ()
    return tuple(_changed(folder) for folder in (effects, *(effects / split for split in SPLITS)))


def _changed(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return -1


@define
class Layout:
    """All lists and folders with what they are read for, and the folders that pictures lie in, resolved."""

    state: tuple[int, ...]
    effects: Sequence[tuple[Place, Asked]]
    inside: frozenset[Path]
    base: Path
    _by_effect: Mapping[str, Sequence[tuple[Place, Asked]]]
    _indexed: list[tuple[Sequence[Sheet], Mapping[str, Sequence[Row]]]] = field(factory=list)

    @classmethod
    def of(cls, given: Iterable[tuple[Place, Asked]], state: tuple[int, ...]) -> Layout:
        """Look up every place once."""
        places = list(given)
        found = dict.fromkeys(folder for place, _ in places for folder in folders(place))
        effects = [(place, asked) for place, asked in places if asked.stream == "effects"]
        by_effect: dict[str, list[tuple[Place, Asked]]] = {}
        for place, asked in effects:
            by_effect.setdefault(asked.effect or "", []).append((place, asked))
        return cls(state, effects, frozenset(found), Path(os.path.commonpath(list(found))), by_effect)

    def own(self, effect: str) -> Sequence[tuple[Place, Asked]]:
        """The places that may have lines of an effect: those of all effects, and its own."""
        of_all = self._by_effect.get("", ())
        return [*of_all, *self._by_effect.get(effect, ())] if effect else of_all

    def rows_of(self, effect: str, read: Sequence[Sheet]) -> Sequence[Row]:
        """An effect's rows of the sheets that its places have; those of all effects are sorted once."""
        if not self._indexed or not _same(self._indexed[0][0], read):
            index: dict[str, list[Row]] = {}
            for sheet in read:
                for row in sheet.rows:
                    index.setdefault(row.effect, []).append(row)
            self._indexed[:] = [(read, index)]
        return self._indexed[0][1].get(effect, ())

    def allowed(self, name: str, follow_links: bool) -> Path:
        """The file of a name; PictureError where it lies in none of the folders, perhaps by a link made since."""
        written = Path(os.path.normpath(self.base / name))
        around = [folder for folder in (written, *written.parents) if folder in self.inside]
        try:
            return located(written, around or sorted(self.inside), follow_links=follow_links)
        except (OutsideError, UnusablePathError):
            raise PictureError(f"{quoted(name)} leads out of the dataset's folder") from None


def _same(some: Sequence[Sheet], others: Sequence[Sheet]) -> bool:
    """True for the very same sheets, which are read again only once their files have changed."""
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))

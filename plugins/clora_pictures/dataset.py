"""The dataset component `pictures`: sources of effects and pictures with instructions, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field, frozen

from clora.api import GeneralItem, PictureRow, Split, between, doubts, quoted, same_bytes, shown
from clora_pictures.fitting import Fit, Size, load
from clora_pictures.keys import Stream
from clora_pictures.layout import Layout, layout_state
from clora_pictures.lines import SIZE_LIMIT
from clora_pictures.listings import Effects, Place, places, sheets
from clora_pictures.pictures import Headers
from clora_pictures.problems import Problems, near, sentences
from clora_pictures.rows import Asked, Row, Rules, Sheet

if TYPE_CHECKING:
    import torch


def _sides(instance: object, attribute: attrs.Attribute[Any], value: int | Size | None) -> None:
    for side in () if value is None else (value,) if isinstance(value, int) else value:
        between(1, 8000)(instance, attribute, side)


@frozen
class PicturesDataset:
    """Pictures in lists and folders: `effects` has the sources of every effect, `general` pictures with instructions.

    If `test_share` leaves none of several pictures for tests, one is.
    """

    effects: Effects | None = None  # lists or folders with the sources of every effect
    #: a list or folder of pictures with instructions
    general_: Place | None = field(default=None, alias="general")
    #: a side, or [height, width], of 1 to 8000 pixels; null: the pictures' own, in which all must agree
    size: int | Size | None = field(default=None, validator=_sides)
    fit: Fit = "pad"  # how a picture comes to `size`: padded with white, or cropped
    #: the probability, decided by its name, that a picture without a split is for tests
    test_share: float = field(default=0.2, validator=between(0.0, 1.0, below=True))
    follow_links: bool = False  # true: links may lead out of the lists' and folders' own folders
    size_limit: int = field(default=SIZE_LIMIT, validator=between(1, 8192))  # megabytes of a list
    _layouts: list[Layout] = field(factory=list, init=False, eq=False, repr=False)  # none, or the last one

    def __attrs_post_init__(self) -> None:
        if not self.effects and self.general_ is None:
            raise ValueError("give it `effects`, `general` or both, each a list or a folder")
        if self.fit == "crop" and self.size is None:
            raise ValueError("fit: crop needs a `size` to crop to")

    def check(self) -> Iterable[str]:
        """Every mistake in lines and pictures as one sentence with file:line; reads the pictures' headers only."""
        headers = Headers(resized=self.size is not None)  # one for all files: all pictures share a batch
        looked = [sheet for place, asked in self._places() for sheet in sheets(place, asked)]
        return sentences(sheet.problems + headers.problems(sheet) + self._torn(sheet) for sheet in looked)

    def sources(self, effect: str, split: Split) -> Sequence[str]:
        """The source pictures of an effect; raises ValueError for one that no line names, or a file with mistakes."""
        return tuple(dict.fromkeys(self._names(self._of(split, self._effect(effect)))))

    def general(self, split: Split) -> Sequence[GeneralItem]:
        """Pictures with instructions, in the file's order; raises ValueError for a file with mistakes."""
        rows = self._of(split, _rows(_good(places(self.general_, self._asked("general")))))
        items = (GeneralItem(name, row.instruction) for name, row in zip(self._names(rows), rows, strict=True))
        return tuple(dict.fromkeys(items))

    def pairs(self, effect: str) -> Sequence[tuple[Path, Path]]:
        """(source, target) of an effect's train lines that have a target; raises ValueError as `sources` does."""
        rows = self._of("train", self._effect(effect))
        return tuple(dict.fromkeys((row.source, row.target) for row in rows if row.target is not None))

    def pictures(self) -> Iterable[PictureRow]:
        """Every row of every list and folder; raises ValueError for one with mistakes."""
        for stream in ("effects", "general"):
            by_effect: dict[str, list[tuple[str, Row]]] = {}
            for sheet in _good((place, asked) for place, asked in self._places() if asked.stream == stream):
                for row in sheet.rows:
                    place = f"{shown(sheet.problems.path)}{f':{row.line}' if row.line else ''}"
                    by_effect.setdefault(row.effect, []).append((place, row))
            for effect, rows in by_effect.items():
                tests = {id(row) for row in self._of("test", [row for _, row in rows])}
                for place, row in rows:
                    split: Split = "test" if id(row) in tests else "train"
                    yield PictureRow(place, row.source, row.target, effect, row.instruction, split)

    def warnings(self) -> Iterable[str]:
        """Pairs that look swapped or unchanged, and pictures in train and test alike, told apart by their bytes."""
        rows = list(self.pictures())
        return doubts(rows, same_bytes(path for row in rows for path in (row.source, row.target) if path is not None))

    def images(self, names: Sequence[str]) -> torch.Tensor:
        """Those pictures upright on white, float32 [B, 3, H, W] in [-1, 1]; ValueError names a file that is damaged."""
        layout = self._layout()
        return load([layout.allowed(name, self.follow_links) for name in names], self.stated_size(), self.fit)

    def stated_size(self) -> tuple[int, int] | None:
        """(height, width) that all pictures are padded or cropped to; None where they keep their own."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def _asked(self, stream: Stream) -> Asked:
        return Asked(stream, rules=Rules(self.follow_links, self.size_limit))

    def _places(self) -> Iterator[tuple[Place, Asked]]:
        """All that is given, with what it is read for."""
        yield from places(self.effects, self._asked("effects"))
        yield from places(self.general_, self._asked("general"))

    def _layout(self) -> Layout:
        """Where everything lies, looked up again once a folder of all effects has changed."""
        state = layout_state(self.effects)
        if not self._layouts or self._layouts[0].state != state:
            self._layouts[:] = [Layout.of(self._places(), state)]
        return self._layouts[0]

    def _effect(self, effect: str) -> Sequence[Row]:
        """An effect's rows of both splits."""
        layout = self._layout()
        own = layout.own(effect)
        read = _good(own)
        found = layout.rows_of(effect, read)
        if found or (own and own[0][1].effect == effect):
            return found
        known = sorted(
            {row.effect for row in _rows(read)} | {asked.effect for _, asked in layout.effects if asked.effect}
        )
        listed = near(effect, known) or (f"; it has {', '.join(quoted(n)[1:-1] for n in known[:20])}" if known else "")
        where = "the dataset's `effects`" if isinstance(self.effects, Mapping) else self.effects and shown(self.effects)
        where = where or "the dataset, which has no `effects` file,"
        raise ValueError(f"{where} has no line of the effect {quoted(effect)}{listed}")

    def _split(self, row: Row) -> Split:
        """The line's own split, or one that depends on the source's name: the same in all files and for ever."""
        if row.split is not None:
            return row.split
        return "test" if _drawn(row) < self.test_share else "train"

    def _of(self, split: Split, rows: Sequence[Row]) -> list[Row]:
        """The rows of a split. Of a few pictures chance may keep none for tests: then the nearest to it is."""
        free = [row for row in rows if row.split is None]
        chance: dict[Split, list[Row]] = {"train": [], "test": []}
        for row in rows:
            chance[self._split(row)].append(row)
        if chance["test"] or not self.test_share or len({row.source for row in free}) < 2:
            return chance[split]
        kept = min(free, key=_drawn).source
        return [row for row in rows if (row.split is None and row.source == kept) == (split == "test")]

    def _torn(self, sheet: Sheet) -> Problems:
        """Lines that train on a picture which another line of the same effect or words keeps for tests."""
        problems = Problems(sheet.problems.path)
        first: dict[tuple[str, str, Path], Row] = {}
        for row in sheet.rows:
            other = first.setdefault((row.effect, "" if row.effect else row.instruction, row.source), row)
            if self._split(row) != self._split(other):
                problems.at(
                    row.line,
                    f"{quoted(row.below)} is a {self._split(row)} picture here, a {self._split(other)} one in line "
                    f"{other.line}; give both lines the same split",
                )
        return problems

    def _names(self, rows: Iterable[Row]) -> list[str]:
        """The dataset's names of rows' pictures, below what all its folders share; one picture has one name."""
        base = self._layout().base
        return [row.source.relative_to(base).as_posix() for row in rows]


def _good(given: Iterable[tuple[Place, Asked]]) -> list[Sheet]:
    """Lists and folders as sheets; ValueError with their mistakes."""
    read = [sheet for place, asked in given for sheet in sheets(place, asked)]
    if any(sheet.problems.count for sheet in read):
        raise ValueError("\n".join(sentences(sheet.problems for sheet in read)))
    return read


def _rows(read: Iterable[Sheet]) -> list[Row]:
    return [row for sheet in read for row in sheet.rows]


def _drawn(row: Row) -> float:
    """A number in [0, 1) that depends on the source's name alone."""
    return int.from_bytes(blake2b(row.below.encode(), digest_size=8).digest(), "big") / 2**64

"""The dataset component `pictures`: sources of effects and pictures with instructions, by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field, frozen

from clora.api import GeneralItem, PictureError, Split, between
from clora_pictures.fitting import Fit, Size, load
from clora_pictures.listings import Effects, Place, folders, places, sheets
from clora_pictures.pictures import Headers, located
from clora_pictures.problems import Problems, near, sentences
from clora_pictures.rows import Asked, Row, Sheet

if TYPE_CHECKING:
    import torch


def _sides(instance: object, attribute: attrs.Attribute[Any], value: int | Size | None) -> None:
    for side in () if value is None else (value,) if isinstance(value, int) else value:
        between(1, 8000)(instance, attribute, side)


@frozen
class PicturesDataset:
    """Pictures in lists and folders: `effects` has the sources of every effect, `general` pictures with instructions.

    Pictures are padded with white to `size` (a side, or [height, width], 1 to 8000) or cropped to it; None keeps their
    own size, in which all must agree. One without a split is for tests with the probability `test_share`, decided by
    its name; if that leaves none of several for tests, one is.
    """

    effects: Effects | None = None
    general_: Place | None = field(default=None, alias="general")  # the protocol has a method of that name
    size: int | Size | None = field(default=None, validator=_sides)
    fit: Fit = "pad"
    test_share: float = field(default=0.2, validator=between(0.0, 1.0, below=True))

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
        rows = self._of(split, self._good(places(self.general_, Asked("general"))))
        items = (GeneralItem(name, row.instruction) for name, row in zip(self._names(rows), rows, strict=True))
        return tuple(dict.fromkeys(items))

    def pairs(self, effect: str) -> Sequence[tuple[Path, Path]]:
        """(source, target) of an effect's train lines that have a target; raises ValueError as `sources` does."""
        rows = self._of("train", self._effect(effect))
        return tuple(dict.fromkeys((row.source, row.target) for row in rows if row.target is not None))

    def images(self, names: Sequence[str]) -> torch.Tensor:
        """Those pictures upright on white, float32 [B, 3, H, W] in [-1, 1]; ValueError names a file that is damaged."""
        inside = self._folders()
        base = _common(inside)
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        return load([_allowed(base, name, inside) for name in names], size, self.fit)

    def _places(self) -> Iterator[tuple[Place, Asked]]:
        """All that is given, with what it is read for."""
        yield from places(self.effects, Asked("effects"))
        yield from places(self.general_, Asked("general"))

    def _effect(self, effect: str) -> list[Row]:
        """An effect's rows of both splits."""
        given = list(places(self.effects, Asked("effects")))
        own = [(place, asked) for place, asked in given if asked.effect in (None, effect)]
        rows = self._good(own)
        found = [row for row in rows if row.effect == effect]
        if found or (own and own[0][1].effect == effect):
            return found
        known = sorted({row.effect for row in rows} | {asked.effect for _, asked in given if asked.effect})
        listed = near(effect, known) or (f"; it has {', '.join(known[:20])}" if known else "")
        where = "the dataset's `effects`" if isinstance(self.effects, Mapping) else self.effects
        where = where or "the dataset, which has no `effects` file,"
        raise ValueError(f"{where} has no line of the effect {effect!r}{listed}")

    def _good(self, given: Iterable[tuple[Place, Asked]]) -> list[Row]:
        """The rows of lists and folders; ValueError with their mistakes."""
        read = [sheet for place, asked in given for sheet in sheets(place, asked)]
        if any(sheet.problems.count for sheet in read):
            raise ValueError("\n".join(sentences(sheet.problems for sheet in read)))
        return [row for sheet in read for row in sheet.rows]

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
                    f"{row.below!r} is a {self._split(row)} picture here, a {self._split(other)} one in line "
                    f"{other.line}; give both lines the same split",
                )
        return problems

    def _folders(self) -> list[Path]:
        found = (folder for place, _ in self._places() for folder in folders(place))
        return list(dict.fromkeys(found))

    def _names(self, rows: Iterable[Row]) -> list[str]:
        """The dataset's names of rows' pictures, below what all its folders share; one picture has one name."""
        base = _common(self._folders())
        return [row.source.relative_to(base).as_posix() for row in rows]


def _drawn(row: Row) -> float:
    """A number in [0, 1) that depends on the source's name alone."""
    return int.from_bytes(blake2b(row.below.encode(), digest_size=8).digest(), "big") / 2**64


def _common(inside: Sequence[Path]) -> Path:
    return Path(os.path.commonpath(inside))


def _allowed(base: Path, name: str, inside: Sequence[Path]) -> Path:
    """The file of a name; ValueError where it lies in none of the folders, perhaps by a link made since."""
    path = located(base, name)
    if not any(path.is_relative_to(folder) for folder in inside):
        raise PictureError(f"{name!r} leads out of the dataset's folder")
    return path

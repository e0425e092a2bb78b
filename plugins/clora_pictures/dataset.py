"""The dataset component `jsonl`: sources of effects and pictures with instructions, by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import and_, ge, le, lt, optional

from clora.api import GeneralItem, PictureError, Split
from clora_pictures.pictures import Headers, load, located
from clora_pictures.problems import near, sentences
from clora_pictures.rows import Row, Stream, read_rows

if TYPE_CHECKING:
    import torch


@frozen
class JsonlDataset:
    """Pictures listed in JSONL files: `effects` has the sources of every effect, `general` pictures with instructions.

    Pictures are padded with white to a square and resized to `size` (None keeps their own size, in which all must
    agree). A line without a split is a test line with the probability `test_share`, decided by its source's name.
    """

    effects: Path | None = None
    general_: Path | None = field(default=None, alias="general")  # the protocol has a method of that name
    size: int | None = field(default=None, validator=optional(and_(ge(1), le(8000))))
    test_share: float = field(default=0.2, validator=and_(ge(0.0), lt(1.0)))

    def __attrs_post_init__(self) -> None:
        if self.effects is None and self.general_ is None:
            raise ValueError("give it `effects`, `general` or both, each a JSONL file")

    def check(self) -> Iterable[str]:
        """Every mistake in lines and pictures as one sentence with file:line; reads the pictures' headers only."""
        headers = Headers(resized=self.size is not None)  # one for both files: all pictures share a batch
        looked = ((file, read_rows(file, stream)) for file, stream in self._files())
        return sentences(read.problems + headers.problems(file, read) for file, read in looked)

    def sources(self, effect: str, split: Split) -> Sequence[str]:
        """The source pictures of an effect; raises ValueError for one that no line names, or a file with mistakes."""
        rows = self._good(self.effects, "effects")
        if not any(row.effect == effect for row in rows):
            known = sorted({row.effect for row in rows})
            listed = near(effect, known) or (f"; it has {', '.join(known[:20])}" if known else "")
            where = self.effects or "the dataset, which has no `effects` file,"
            raise ValueError(f"{where} has no line of the effect {effect!r}{listed}")
        here = [row for row in rows if row.effect == effect and self._split(row) == split]
        return tuple(dict.fromkeys(self._names(self.effects, here)))

    def general(self, split: Split) -> Sequence[GeneralItem]:
        """Pictures with instructions, in the file's order; raises ValueError for a file with mistakes."""
        rows = self._good(self.general_, "general")
        here = [row for row in rows if self._split(row) == split]
        names = self._names(self.general_, here)
        return tuple(GeneralItem(name, row.instruction) for name, row in zip(names, here, strict=True))

    def images(self, names: Sequence[str]) -> torch.Tensor:
        """Those pictures upright on white, float32 [B, 3, H, W] in [-1, 1]; ValueError names a file that is damaged."""
        return load([self._path(name) for name in names], self.size)

    def _files(self) -> list[tuple[Path, Stream]]:
        """The files that are given, with the stream of each."""
        both: tuple[tuple[Path | None, Stream], ...] = ((self.effects, "effects"), (self.general_, "general"))
        return [(file, stream) for file, stream in both if file is not None]

    def _good(self, file: Path | None, stream: Stream) -> tuple[Row, ...]:
        """A file's rows, none where it is not given; ValueError with its mistakes."""
        if file is None:
            return ()
        read = read_rows(file, stream)
        if read.problems.count:
            raise ValueError("\n".join(sentences([read.problems])))
        return read.rows

    def _split(self, row: Row) -> Split:
        """The line's own split, or one that depends on the source's name alone: the same in both files and for ever."""
        if row.split is not None:
            return row.split
        drawn = int.from_bytes(blake2b(row.source.encode(), digest_size=8).digest(), "big") / 2**64
        return "test" if drawn < self.test_share else "train"

    def _folders(self) -> list[Path]:
        return [file.parent.resolve() for file, _ in self._files()]

    def _base(self) -> Path:
        """The folder that names are relative to: the files' own, or what two different folders have in common."""
        return Path(os.path.commonpath(self._folders()))

    def _names(self, file: Path | None, rows: Sequence[Row]) -> list[str]:
        """The dataset's names of rows' pictures; one picture has one name, and two never share it."""
        if file is None:
            return []
        below = file.parent.resolve().relative_to(self._base()).as_posix()
        return [row.source if below == "." else f"{below}/{row.source}" for row in rows]

    def _path(self, name: str) -> Path:
        """The file of a name; ValueError where it lies beside neither JSONL file, perhaps by a link made since."""
        path = located(self._base(), name)
        if not any(path.is_relative_to(folder) for folder in self._folders()):
            raise PictureError(f"{name!r} leads out of the dataset's folder")
        return path

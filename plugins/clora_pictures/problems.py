"""Mistakes found in a file, each with its line; a file of millions of bad lines costs no more than a few."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from attrs import define, field, frozen

from clora.api import nearest, quoted, shown

#: how many mistakes are shown
SHOWN = 50
#: for how many mistakes of a file the word that was probably meant is looked for, and among how many names
ADVISED, NEIGHBOURS = 20, 2000


@frozen(order=True)
class Problem:
    """One mistake at a line and column (from 1), 0 where there is none."""

    line: int
    column: int
    sentence: str

    def told(self, path: Path) -> str:
        """The mistake as file:line:column: sentence."""
        place = "".join(f":{number}" for number in (self.line, self.column) if number)
        return f"{shown(path)}{place}: {self.sentence}"


@define
class Problems:
    """The first mistakes of one file in the order they were met, and how many more there are."""

    path: Path
    kept: list[Problem] = field(factory=list)
    more: int = 0

    @property
    def count(self) -> int:
        """How many mistakes there are in all."""
        return len(self.kept) + self.more

    @property
    def advised(self) -> bool:
        """True once so many mistakes are told that none needs advice any more."""
        return self.count >= ADVISED

    def at(self, line: int, sentence: str, column: int = 0) -> None:
        """Note a mistake; line 0 is the whole file."""
        if len(self.kept) < SHOWN:
            self.kept.append(Problem(line, column, sentence))
        else:
            self.more += 1

    def __add__(self, other: Problems) -> Problems:
        """The mistakes of two readings of the same file, in the order of its lines."""
        together = sorted((*self.kept, *other.kept), key=lambda problem: problem.line)
        return Problems(self.path, together[:SHOWN], self.more + other.more + len(together[SHOWN:]))


def sentences(files: Iterable[Problems]) -> Iterator[str]:
    """The mistakes of several files, at most SHOWN of them, then how many more there are."""
    files = list(files)
    lines = [problem.told(file.path) for file in files for problem in file.kept]
    yield from lines[:SHOWN]
    hidden = sum(file.count for file in files) - len(lines[:SHOWN])
    if hidden:
        yield f"... and {hidden} more"


def near(word: str, words: Iterable[str]) -> str:
    """The end of a message about an unknown word: the one that was probably meant, or nothing."""
    close = nearest(word, words)
    return f"; did you mean {quoted(close)}?" if close else ""


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """The file name that was probably meant: the same in other letters' case or Unicode form, or else the nearest.

    Of very many names the first NEIGHBOURS are looked at.
    """
    names = list(islice(names, NEIGHBOURS))
    alike = {_plain(known): known for known in names}
    return alike.get(_plain(name)) or nearest(name, names)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()

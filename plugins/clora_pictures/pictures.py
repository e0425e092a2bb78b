"""Picture files: inside their folder, and looked at by their headers alone."""

from __future__ import annotations

import unicodedata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from clora.api import PictureError, picture_size
from clora_pictures.problems import SHOWN, Problems, nearest_name

if TYPE_CHECKING:
    from clora_pictures.rows import Sheet

#: how many files of a folder are looked through for the name that was probably meant
NEIGHBOURS = 2000


def located(folder: Path, text: str) -> Path:
    """The file that `text` means, links and `..` followed; `folder` is resolved.

    Raises PictureError, a ValueError, in words that follow the name of a key, where it leads out of the folder.
    """
    try:
        path = (folder / text).resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, a zero byte, a name too long
        raise PictureError(f"{text!r} is no usable path") from None
    if not path.is_relative_to(folder):
        raise PictureError(f"{text!r} leads out of the file's folder; put the pictures beside the file or below it")
    return path


@define
class Headers:
    """What pictures' headers tell: unless they are `resized`, all must have the `size` (height, width) of the first."""

    resized: bool
    size: tuple[int, int] | None = None
    _looked: dict[Path, tuple[int, int] | str] = field(factory=dict)

    def problems(self, sheet: Sheet) -> Problems:
        """The pictures of a list's rows that are missing, no pictures, enormous or of another size."""
        problems = Problems(sheet.problems.path)
        folder = problems.path if problems.path.is_dir() else problems.path.parent
        for row in sheet.rows:
            for key, path in (("source", row.source), ("target", row.target)):
                if path is None:
                    continue
                if path not in self._looked:
                    self._looked[path] = _looked_at(path, folder.resolve(), advise=problems.count < SHOWN)
                wrong = self._wrong(path, folder, self._looked[path])
                if wrong:
                    problems.at(row.line, f"{key} {wrong}")
        return problems

    def _wrong(self, path: Path, folder: Path, found: tuple[int, int] | str) -> str:
        if isinstance(found, str):
            return found
        self.size = self.size or found
        if self.resized or found == self.size:
            return ""
        name = _below(path, folder.resolve())
        return f"{name!r} is {by(found)}, the first picture {by(self.size)}; give the dataset a size"


def _looked_at(path: Path, folder: Path, advise: bool) -> tuple[int, int] | str:
    """The (height, width) that a picture's header tells, or what is wrong with it."""
    name = _below(path, folder)
    try:
        if path.is_file():
            return picture_size(path)
        hint = _meant(path, name, folder) if advise else ""
    except (PictureError, OSError) as error:
        return str(error)
    return f"{name!r}: there is no such picture{hint}"


def _meant(path: Path, name: str, folder: Path) -> str:
    """The picture that was probably meant, as the end of a sentence: the same file by another way, or one like it."""
    parts = name.replace("\\", "/").split("/")
    for i in range(len(parts)):
        way = "/".join(parts[i:])
        if way and (folder / way).is_file():
            return f"; {way!r} is there: paths are relative to the list's folder, their parts separated by /"
    beside = islice(path.parent.iterdir(), NEIGHBOURS) if path.parent.is_dir() else ()
    names = {file.stem: file.name for file in beside if file.is_file()}
    close = nearest_name(path.stem, names)  # without the ending, which alone makes no two names alike
    if close is None:
        return ""
    if unicodedata.normalize("NFC", names[close]) == unicodedata.normalize("NFC", path.name):
        return f"; {names[close]!r} is there, its accents in another Unicode form: rename one of them"
    return f"; did you mean {names[close]!r}?"


def _below(path: Path, folder: Path) -> str:
    """A picture's name below the folder it is listed in, or its whole path where it lies beside it."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def by(size: tuple[int, int]) -> str:
    """A (height, width) as people say it."""
    return f"{size[1]} x {size[0]}"

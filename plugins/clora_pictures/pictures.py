"""Picture files: inside their folder, and looked at by their headers alone."""

from __future__ import annotations

import unicodedata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from clora.api import (
    OutsideError,
    PictureError,
    UnusablePathError,
    located,
    not_a_file,
    picture_size,
    quoted,
    reason,
    shown,
)
from clora_pictures.problems import ADVISED, NEIGHBOURS, Problems, nearest_name

if TYPE_CHECKING:
    from clora_pictures.rows import Sheet

#: the end of the sentence about a link that leads out of its folder
FOLLOW = "`follow_links: true` of the dataset follows it"


def picture_at(text: str, folder: Path, follow_links: bool) -> Path:
    """The file that `text` means, links and `..` followed; `folder` is resolved.

    Raises PictureError, a ValueError, in words that follow the name of a key, where it leads out of the folder, unless
    by a link and `follow_links`.
    """
    try:
        return located(text, (folder,), follow_links=follow_links)
    except UnusablePathError as error:
        raise PictureError(str(error)) from None
    except OutsideError as error:
        instead = FOLLOW if error.linked else "put the pictures beside the file or below it"
        by_link = " by a link" if error.linked else ""
        raise PictureError(f"{quoted(text)} leads out of the file's folder{by_link}; {instead}") from None


@define
class Headers:
    """What pictures' headers tell: unless they are `resized`, all must have the `size` (height, width) of the first."""

    resized: bool
    size: tuple[int, int] | None = None
    _looked: dict[Path, tuple[int, int] | str] = field(factory=dict)

    def problems(self, sheet: Sheet) -> Problems:
        """The pictures of a list's rows that are missing, no pictures, enormous or of another size."""
        problems = Problems(sheet.problems.path)
        folder = (problems.path if problems.path.is_dir() else problems.path.parent).resolve()
        for row in sheet.rows:
            for key, path in (("source", row.source), ("target", row.target)):
                if path is None:
                    continue
                if path not in self._looked:
                    self._looked[path] = _looked_at(path, folder, advise=problems.count < ADVISED)
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
        name = _below(path, folder)
        return f"{quoted(name)} is {by(found)}, the first picture {by(self.size)}; give the dataset a size"


def _looked_at(path: Path, folder: Path, advise: bool) -> tuple[int, int] | str:
    """The (height, width) that a picture's header tells, or what is wrong with it."""
    name = _below(path, folder)
    try:
        wrong = not_a_file(path)
        if wrong is None:
            return picture_size(path)
        if wrong != "does not exist":
            return f"{quoted(name)} {wrong}"
        hint = _meant(path, name, folder) if advise else ""
    except PictureError as error:
        return str(error)
    except OSError as error:
        return f"{quoted(name)} cannot be read: {reason(error.strerror or error)}"
    return f"{quoted(name)}: there is no such picture{hint}"


def _meant(path: Path, name: str, folder: Path) -> str:
    """The picture that was probably meant, as the end of a sentence: the same file by another way, or one like it."""
    parts = name.replace("\\", "/").split("/")
    for i in range(min(len(parts), 64)):
        way = "/".join(parts[i:])
        if way and (folder / way).is_file():
            return f"; {quoted(way)} is there: paths are relative to the list's folder, their parts separated by /"
    beside = islice(path.parent.iterdir(), NEIGHBOURS) if path.parent.is_dir() else ()
    names = {file.stem: file.name for file in beside if file.is_file()}
    close = nearest_name(path.stem, names)  # without the ending, which alone makes no two names alike
    if close is None:
        return ""
    if unicodedata.normalize("NFC", names[close]) == unicodedata.normalize("NFC", path.name):
        return f"; {quoted(names[close])} is there, its accents in another Unicode form: rename one of them"
    return f"; did you mean {quoted(names[close])}?"


def _below(path: Path, folder: Path) -> str:
    """A picture's name below the folder it is listed in, or its whole path where it lies beside it."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else shown(path)


def by(size: tuple[int, int]) -> str:
    """A (height, width) as people say it."""
    return f"{size[1]} x {size[0]}"

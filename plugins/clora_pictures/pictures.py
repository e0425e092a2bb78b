"""Picture files: inside their folder, looked at by their headers, and loaded when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define

from clora.api import PictureError, picture_size, read_picture
from clora_pictures.problems import SHOWN, Problems

if TYPE_CHECKING:
    import torch

    from clora_pictures.rows import Rows

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

    def problems(self, path: Path, read: Rows) -> Problems:
        """The pictures of a file's rows that are missing, no pictures, enormous or of another size."""
        problems = Problems(path)
        looked: dict[str, tuple[int, int] | str] = {}
        for row in read.rows:
            for key, name in (("source", row.source), ("target", row.target)):
                if name is None:
                    continue
                if name not in looked:
                    looked[name] = _looked_at(read.folder, name, advise=problems.count < SHOWN)
                wrong = self._wrong(name, looked[name])
                if wrong:
                    problems.at(row.line, f"{key} {wrong}")
        return problems

    def _wrong(self, name: str, found: tuple[int, int] | str) -> str:
        if isinstance(found, str):
            return found
        self.size = self.size or found
        if self.resized or found == self.size:
            return ""
        return f"{name!r} is {_by(found)}, the first picture {_by(self.size)}; give the dataset a size"


def _looked_at(folder: Path, name: str, advise: bool) -> tuple[int, int] | str:
    """The (height, width) that a picture's header tells, or what is wrong with it."""
    path = folder / name
    try:
        if path.is_file():
            return picture_size(path)
        beside = islice(path.parent.iterdir(), NEIGHBOURS) if advise and path.parent.is_dir() else ()
        names = {file.stem: file.name for file in beside if file.is_file()}
    except (PictureError, OSError) as error:
        return str(error)
    close = get_close_matches(path.stem, names, n=1)  # without the ending, which alone makes no two names alike
    hint = f"; did you mean {names[close[0]]!r}?" if close else ""
    return f"{name!r}: there is no such picture{hint}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def load(paths: Sequence[Path], size: int | None) -> torch.Tensor:
    """Picture files, float32 [B, 3, H, W] in [-1, 1]; H = W = size where it is given.

    Raises ValueError that names the file for one that is damaged or, without a size, differs from the first.
    """
    import torch

    found: list[torch.Tensor] = []
    for path in paths:
        picture = read_picture(path)
        picture = picture if size is None else square(picture, size)
        if found and picture.shape != found[0].shape:
            here, first = _by((picture.shape[2], picture.shape[3])), _by((found[0].shape[2], found[0].shape[3]))
            raise PictureError(f"{path} is {here}, {paths[0]} is {first}; give the dataset a size")
        found.append(picture)
    return torch.cat(found)


def square(picture: torch.Tensor, size: int) -> torch.Tensor:
    """A picture [1, 3, H, W] of any shape, [1, 3, size, size]: its longer side fits, white fills the rest."""
    from torch.nn.functional import interpolate, pad

    longer = max(picture.shape[-2:])
    height, width = (max(1, round(side * size / longer)) for side in picture.shape[-2:])
    # Shrunk before it is padded: a strip of 64 million by one would make a square that fits in no memory.
    if (height, width) != tuple(picture.shape[-2:]):
        picture = interpolate(picture, (height, width), mode="bilinear", antialias=True, align_corners=False)
    top, left = (size - height) // 2, (size - width) // 2
    padding = (left, size - width - left, top, size - height - top)
    return pad(picture, padding, value=1.0).clamp(-1, 1)

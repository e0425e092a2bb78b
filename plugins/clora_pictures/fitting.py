"""Pictures as one batch of tensors: padded or cropped to a size, never stretched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clora.api import PictureError, read_picture, shown
from clora_pictures.pictures import by

if TYPE_CHECKING:
    import torch

Fit = Literal["pad", "crop"]
Size = tuple[int, int]  # (height, width)


def load(paths: Sequence[Path], size: Size | None, fit: Fit) -> torch.Tensor:
    """Picture files, float32 [B, 3, H, W] in [-1, 1]; (H, W) = size where it is given.

    Raises ValueError that names the file for one that is damaged or, without a size, differs from the first.
    """
    import torch

    if size is not None:
        batch = torch.empty(len(paths), 3, *size)
        for i, path in enumerate(paths):  # one by one: a picture of full size is in memory no longer than it takes
            batch[i] = fitted(read_picture(path), size, fit)[0]
        return batch
    found: list[torch.Tensor] = []
    for path in paths:
        picture = read_picture(path)
        if found and picture.shape != found[0].shape:
            here, first = by((picture.shape[2], picture.shape[3])), by((found[0].shape[2], found[0].shape[3]))
            raise PictureError(f"{shown(path)} is {here}, {shown(paths[0])} is {first}; give the dataset a size")
        found.append(picture)
    return torch.cat(found)


def fitted(picture: torch.Tensor, size: Size, fit: Fit) -> torch.Tensor:
    """A picture [1, 3, h, w] of any shape as [1, 3, *size]."""
    return padded(picture, size) if fit == "pad" else cropped(picture, size)


def padded(picture: torch.Tensor, size: Size) -> torch.Tensor:
    """The whole picture as large as it fits, in the middle; white fills the rest."""
    from torch.nn.functional import pad

    scale = min(wanted / side for wanted, side in zip(size, picture.shape[-2:], strict=True))
    # Shrunk before it is padded: a strip of 64 million by one would make a picture that fits in no memory.
    height, width = (
        min(wanted, max(1, round(side * scale))) for wanted, side in zip(size, picture.shape[-2:], strict=True)
    )
    picture = _resized(picture, (height, width))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pad(picture, (left, size[1] - width - left, top, size[0] - height - top), value=1.0)


def cropped(picture: torch.Tensor, size: Size) -> torch.Tensor:
    """The middle of the picture, as much of it as the size's shape holds."""
    scale = max(wanted / side for wanted, side in zip(size, picture.shape[-2:], strict=True))
    # Cut to whole pixels around the part that is kept before it grows, and to the size itself afterwards.
    margins = [int((side - wanted / scale) / 2) for wanted, side in zip(size, picture.shape[-2:], strict=True)]
    top, left = (max(0, margin) for margin in margins)
    kept = picture[..., top : picture.shape[-2] - top, left : picture.shape[-1] - left]
    height, width = (max(wanted, round(side * scale)) for wanted, side in zip(size, kept.shape[-2:], strict=True))
    grown = _resized(kept, (height, width))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return grown[..., top : top + size[0], left : left + size[1]]


def _resized(picture: torch.Tensor, size: Size) -> torch.Tensor:
    from torch.nn.functional import interpolate

    if tuple(picture.shape[-2:]) == size:
        return picture
    return interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False).clamp(-1, 1)

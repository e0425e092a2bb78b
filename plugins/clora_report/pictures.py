"""Pictures as PNG data addresses: many small ones packed into one strip, so that the page stays small."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy
from PIL import Image

from clora_report.html import Markup, element

if TYPE_CHECKING:
    import torch

    from clora.api import PictureGrid

#: larger pictures are scaled down: the report shows, the run folder keeps
_LARGEST = 192
#: up to this size a pixel is part of the drawing and is shown crisp when the browser scales up
_CRISP = 96


def as_bytes(pictures: torch.Tensor) -> numpy.ndarray:
    """Pictures uint8 [N, 3, H, W] -> array uint8 [N, H, W, 3]. Raises ValueError for any other shape or type."""
    found = pictures.numpy(force=True)
    if found.ndim != 4 or found.shape[1] != 3 or found.dtype != numpy.uint8:
        raise ValueError(f"pictures must be uint8 [N, 3, H, W], not {found.dtype} {list(found.shape)}")
    return numpy.moveaxis(found, 1, 3)


def _fitted(pictures: numpy.ndarray) -> numpy.ndarray:
    height, width = pictures.shape[1:3]
    scale = _LARGEST / max(height, width)
    if scale >= 1:
        return pictures
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = [numpy.asarray(Image.fromarray(p).resize(target, Image.Resampling.LANCZOS)) for p in pictures]
    return numpy.stack(small)


def packed(rows: Sequence[numpy.ndarray]) -> Image.Image:
    """Rows of equally many pictures uint8 [N, H, W, 3] as one RGBA picture with transparent gaps between them."""
    height, width = rows[0].shape[1:3]
    gap = max(1, width // 16)
    size = (len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap)
    sheet = numpy.zeros((*size, 4), numpy.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width, :3] = picture
            sheet[top : top + height, left : left + width, 3] = 255
    return Image.fromarray(sheet)


def _img(rows: Sequence[numpy.ndarray], alt: str) -> Markup:
    fitted = [_fitted(row) for row in rows]
    sheet = packed(fitted)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    address = "data:image/png;base64," + b64encode(buffer.getvalue()).decode()
    crisp = "crisp" if max(fitted[0].shape[1:3]) <= _CRISP else None
    return element("img", src=address, alt=alt, width=sheet.width, height=sheet.height, class_=crisp)


def _rows(grid: PictureGrid) -> list[numpy.ndarray]:
    """The grid's pictures by role; ValueError where a role has other subjects or sizes than the first."""
    rows = [as_bytes(pictures) for pictures in grid.rows.values()]
    for role, row in zip(grid.rows, rows, strict=True):
        if len(row) != len(grid.subjects) or row.shape != rows[0].shape:
            raise ValueError(
                f"{role}: {list(row.shape)} does not fit {len(grid.subjects)} subjects of {list(rows[0].shape)}"
            )
    return rows


def sheet(grid: PictureGrid, what: str) -> Markup:
    """A grid as one picture: a role a row with its name at the left, a subject a column."""
    rows = _rows(grid)
    if not rows or not grid.subjects:
        return Markup("")
    alt = f"{what}. Rows: {', '.join(grid.rows)}. Columns: {', '.join(grid.subjects)}."
    names = element("div", *(element("span", role) for role in grid.rows), class_="roles", aria_hidden="true")
    image = element(
        "div", _img(rows, alt), class_="sheet-picture", style=f"max-width:{len(grid.subjects) * 4.6:.1f}rem"
    )
    return element("div", names, image, class_="sheet")


def strip(grid: PictureGrid, subject: int, what: str) -> Markup:
    """One subject of a grid as a row of pictures with the role's name under each."""
    rows = _rows(grid)
    one = numpy.stack([row[subject] for row in rows])
    image = _img([one], f"{what}: {', '.join(grid.rows)}")
    names = element("div", *(element("span", role) for role in grid.rows), class_="under", aria_hidden="true")
    return element("div", image, names, class_="strip")

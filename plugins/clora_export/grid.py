"""The sample grid: every effect's test pictures, source above result, as one PNG and as one for each effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    import torch

    from clora.api import EffectSamples

GAP = 8
WIDEST = 3000  # of the grid of all effects, which would else grow with their number
_LABEL = 22


def strips(samples: Mapping[str, EffectSamples], pictures: int, side: int) -> dict[str, Image.Image]:
    """For every effect two rows, sources and results: at most so many pictures, their longer side of `side` pixels.

    Larger pictures are scaled down, smaller ones up without smoothing.
    """
    return {
        effect: _sheet([_cells(found[:pictures], side) for found in (sample.source, sample.result)])
        for effect, sample in samples.items()
    }


def grid(strips: Mapping[str, Image.Image]) -> Image.Image:
    """All strips in one picture, each under its effect's name, in as many columns as make it about square."""
    width, height = next(iter(strips.values())).size
    block = height + _LABEL + 2 * GAP
    columns = max(1, round((len(strips) * block / width) ** 0.5))
    rows = -(-len(strips) // columns)
    size = (columns * (width + 2 * GAP) + GAP, rows * block + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=16)
    for i, (effect, strip) in enumerate(strips.items()):
        left, top = GAP + (i % columns) * (width + 2 * GAP), GAP + (i // columns) * block
        draw.text((left, top), effect, fill="black", font=font)
        sheet.paste(strip, (left, top + _LABEL))
    sheet.thumbnail((WIDEST, WIDEST))
    return sheet


def png(picture: Image.Image) -> bytes:
    """A picture as PNG."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _cells(pictures: torch.Tensor, side: int) -> list[Image.Image]:
    cells = []
    for pixels in pictures.permute(0, 2, 3, 1).numpy():
        image = Image.fromarray(numpy.ascontiguousarray(pixels))
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        cells.append(image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST))
    return cells


def _sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), "white")
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            sheet.paste(cell, (x * (width + GAP), y * (height + GAP)))
    return sheet

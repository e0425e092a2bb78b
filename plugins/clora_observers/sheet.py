"""A contact sheet: a row of source pictures and, below it, what became of them, for every effect."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from clora.api import EffectEdits, to_image, write_atomic

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as Picture

GAP = 8  # pixels between pictures
LINE = 20  # pixels of an effect's heading
MOST_LETTERS = 100
LEAST = 96  # pixels of a picture's height, where it is not wanted smaller


def write_sheet(path: Path, samples: Sequence[EffectEdits], height: int) -> None:
    """Write the pictures of all effects as one PNG, in one step; none is higher than `height` pixels."""
    blocks = [_block(one, height) for one in samples]
    width = max(block.width for block in blocks)
    sheet = Image.new("RGB", (width, sum(block.height for block in blocks)), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())


def _block(samples: EffectEdits, height: int) -> Picture:
    """One effect: its name, the sources in a row, the results below."""
    rows = [[_sized(picture, height) for picture in pictures] for pictures in (samples.source, samples.student)]
    columns = [max(above.width, below.width) for above, below in zip(*rows, strict=True)]
    heights = [max(picture.height for picture in row) for row in rows]
    size = (sum(columns) + GAP * (len(columns) + 1), LINE + sum(heights) + 2 * GAP)
    block = Image.new("RGB", size, "white")
    name = samples.effect[:MOST_LETTERS].encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font has
    ImageDraw.Draw(block).text((GAP, 4), name, fill="black")
    top = LINE
    for row, row_height in zip(rows, heights, strict=True):
        left = GAP
        for picture, width in zip(row, columns, strict=True):
            block.paste(picture, (left, top))
            left += width + GAP
        top += row_height + GAP
    return block


def _sized(picture: torch.Tensor, height: int) -> Picture:
    """[3, H, W] in [-1, 1] as a picture of at most so many pixels in height; tiny ones are enlarged, whole pixels."""
    image = to_image(picture)
    if image.height <= height:
        factor = max(1, min(height, LEAST) // image.height)
        return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    return image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS)

"""The same pictures under several students, side by side: a row for each run, a column for each effect."""

from __future__ import annotations

from collections.abc import Mapping

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont

from clora.runs.files.tensors import read_tensors
from clora.runs.run_dir import RunDir

CELL, GAP, LABEL = 96, 4, 320


def sheet(runs: Mapping[str, RunDir], effects: int = 8) -> Image.Image:
    """Source, truth and every run's student; column k is the k-th test picture under the k-th effect."""
    read = {label: read_tensors(folder.pictures) for label, folder in runs.items()}
    first = next(iter(read.values()))
    names = [name.removesuffix(".student") for name in first if name.endswith(".student") and name[:8] != "general."]
    names = names[:effects]
    rows = {"source": _row(first, names, "source"), "truth": _row(first, names, "truth")}
    rows |= {label: _row(pictures, names, "student") for label, pictures in read.items()}
    step = CELL + GAP
    made = Image.new("RGB", (LABEL + len(names) * step, 22 + len(rows) * step), "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(size=14)
    for x, name in enumerate(names):
        draw.text((LABEL + x * step, 3), name, fill="black", font=ImageFont.load_default(size=11))
    for y, (label, cells) in enumerate(rows.items()):
        draw.text((4, 22 + y * step + CELL // 2 - 8), label, fill="black", font=font)
        for x, cell in enumerate(cells):
            made.paste(cell, (LABEL + x * step, 22 + y * step))
    return made


def _row(pictures: Mapping[str, torch.Tensor], names: list[str], role: str) -> list[Image.Image]:
    """The k-th picture of the k-th effect, enlarged."""
    found = [pictures[f"{name}.{role}"][k] for k, name in enumerate(names)]
    images = [Image.fromarray(numpy.ascontiguousarray(pixels.permute(1, 2, 0).numpy())) for pixels in found]
    return [image.resize((CELL, CELL), Image.Resampling.NEAREST) for image in images]

"""What a model is shown: the pairs' pictures with words between them, then the request."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from clora.api import read_picture

if TYPE_CHECKING:
    from PIL.Image import Image


def parts(request: str, pairs: Sequence[tuple[Path, Path]]) -> list[str | Path]:
    """Words and pictures in the order in which they are read."""
    shown: list[str | Path] = []
    for number, (before, after) in enumerate(pairs, 1):
        shown += [f"Pair {number}, before:", before, f"Pair {number}, after:", after]
    return [*shown, request]


def shrunk(path: Path, size: int) -> Image:
    """A picture as RGB, upright on white, its longer side at most `size` pixels. Raises PictureError."""
    from PIL import Image

    pixels = ((read_picture(path)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


def data_url(path: Path, size: int) -> str:
    """The shrunken picture as a JPEG in a data URL. Raises PictureError."""
    buffer = BytesIO()
    shrunk(path, size).save(buffer, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

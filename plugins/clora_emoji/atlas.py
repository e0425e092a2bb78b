"""Pictures of every subject by every artist, read lazily from the committed atlases."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from clora.api import quoted, read_json

if TYPE_CHECKING:
    import torch

ASSETS = Path(__file__).parent / "assets"
ARTISTS = ("noto", "noto-v1", "twemoji", "fluent-emoji-flat", "fluent-emoji-high-contrast")
SIZE = 32
COLUMNS = 32
TEST_CATEGORIES = ("animals", "faces")


@attrs.frozen
class Subject:
    """One emoji: its name, its category and whether models may learn from it ("train") or not ("test")."""

    name: str
    category: str
    split: str


@cache
def subjects() -> tuple[Subject, ...]:
    """Return every subject, in the order of the atlases."""
    rows = read_json(ASSETS / "subjects.json")
    return tuple(Subject(row["name"], row["category"], row["split"]) for row in rows)


@cache
def _index() -> dict[str, int]:
    return {subject.name: index for index, subject in enumerate(subjects())}


def select(split: str, categories: tuple[str, ...] = ()) -> list[str]:
    """Return the names in a split ("train" or "test"), of all categories or of those given."""
    return [s.name for s in subjects() if s.split == split and (not categories or s.category in categories)]


@cache
def pictures(artist: str) -> torch.Tensor:
    """Return all subjects by one artist, float32 [N, 3, 32, 32] in [-1, 1]; do not write into it.

    Raises ValueError for an unknown artist or an atlas of the wrong size.
    """
    import numpy
    import torch
    from PIL import Image

    if artist not in ARTISTS:
        raise ValueError(f"unknown artist {quoted(artist)}; there are {', '.join(ARTISTS)}")
    count = len(subjects())
    rows = -(-count // COLUMNS)
    with Image.open(ASSETS / f"{artist}.webp") as image:
        # The header alone tells the size: a damaged or hostile file is refused before a pixel is decoded.
        if image.size != (COLUMNS * SIZE, rows * SIZE):
            raise ValueError(f"atlas of {artist} is {image.size}, expected {(COLUMNS * SIZE, rows * SIZE)}")
        grid = torch.from_numpy(numpy.array(image.convert("RGB")))
    tiles = grid.view(rows, SIZE, COLUMNS, SIZE, 3).permute(0, 2, 4, 1, 3).reshape(-1, 3, SIZE, SIZE)
    return tiles[:count].float() / 127.5 - 1.0


def picture(artist: str, names: Sequence[str]) -> torch.Tensor:
    """Return the named subjects by one artist, float32 [len(names), 3, 32, 32] in [-1, 1].

    Raises ValueError for a name that no atlas holds.
    """
    unknown = [name for name in names if name not in _index()]
    if unknown:
        raise ValueError(f"unknown subject {quoted(unknown[0])}")
    return pictures(artist)[[_index()[name] for name in names]]

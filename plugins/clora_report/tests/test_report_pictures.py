"""Pictures of the report: packed without loss, scaled down when large, told apart by what they are."""

from __future__ import annotations

import base64
import io
import re

import numpy
import pytest
import torch
from clora_report.pictures import as_bytes, sheet, strip
from PIL import Image

from clora.api import PictureGrid


def decoded(markup: str) -> Image.Image:
    found = re.search(r"base64,([^\"]+)", markup)
    assert found
    return Image.open(io.BytesIO(base64.b64decode(found[1])))


def some(count: int, height: int = 16, width: int = 16) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=draw)


def test_wrong_shapes_and_types_are_named():
    with pytest.raises(ValueError, match=r"not uint8 \[1, 4, 8, 8\]"):
        as_bytes(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"not uint8 \[3, 8, 8\]"):
        as_bytes(torch.zeros(3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"not float32 \[1, 3, 8, 8\]"):
        as_bytes(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"student: .* does not fit 2 subjects"):
        sheet(PictureGrid(("a", "b"), {"source": some(2), "student": some(1)}), "x")


def test_a_sheet_is_one_png_with_every_picture_in_its_place():
    pictures = some(3)
    markup = sheet(PictureGrid(("a", "b", "c"), {"source": pictures, "student": 255 - pictures}), "an effect")
    assert markup.count("<img") == 1
    found = numpy.asarray(decoded(markup))
    assert found.shape == (16 * 2 + 1, 16 * 3 + 2, 4)
    assert (found[17:, 17:33, :3] == as_bytes(255 - pictures)[1]).all()
    assert (found[16, :, 3] == 0).all()
    assert 'alt="an effect. Rows: source, student. Columns: a, b, c."' in markup
    assert 'class="crisp"' in markup


def test_a_strip_shows_one_subject():
    pictures = some(3)
    found = numpy.asarray(
        decoded(strip(PictureGrid(("a", "b", "c"), {"source": pictures, "student": 255 - pictures}), 2, "x"))
    )
    assert (found[:, :16, :3] == as_bytes(pictures)[2]).all()
    assert (found[:, 17:, :3] == as_bytes(255 - pictures)[2]).all()


def test_large_pictures_are_scaled_down_and_smooth():
    markup = sheet(PictureGrid(("a",), {"source": some(1, 384, 768)}), "x")
    assert decoded(markup).size == (192, 96)
    assert "crisp" not in markup


def test_an_empty_grid_is_nothing():
    assert sheet(PictureGrid((), {}), "x") == ""

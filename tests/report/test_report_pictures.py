"""Pictures of the report: packed without loss, scaled down when large, told apart by what they are."""

from __future__ import annotations

import base64
import io
import re

import numpy
import pytest
import torch
from PIL import Image

from clora.report.data import Grid
from clora.report.pictures import as_bytes, sheet, strip


def decoded(markup: str) -> Image.Image:
    found = re.search(r"base64,([^\"]+)", markup)
    assert found
    return Image.open(io.BytesIO(base64.b64decode(found[1])))


def test_tensors_and_arrays_become_the_same_bytes():
    raw = numpy.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=numpy.uint8)
    channels_first = torch.from_numpy(raw).permute(0, 3, 1, 2)
    assert (as_bytes(raw) == raw).all()
    assert (as_bytes(channels_first) == raw).all()
    assert (as_bytes(channels_first.float() / 127.5 - 1) == raw).all()
    assert as_bytes((channels_first.float() / 127.5 - 1).bfloat16()).shape == raw.shape


def test_out_of_range_and_broken_numbers_stay_pictures():
    pictures = torch.full((1, 3, 2, 2), 3.0)
    pictures[0, 0, 0, 0] = float("nan")
    assert as_bytes(pictures)[0, 0, 0].tolist() == [0, 255, 255]


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"not \[1, 4, 8, 8\]"):
        as_bytes(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"not \[3, 8, 8\]"):
        as_bytes(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"student: .* does not fit 2 subjects"):
        sheet(Grid(("a", "b"), {"source": torch.zeros(2, 3, 4, 4), "student": torch.zeros(1, 3, 4, 4)}), "x")


def test_a_sheet_is_one_png_with_every_picture_in_its_place():
    pictures = torch.rand(3, 3, 16, 16) * 2 - 1
    markup = sheet(Grid(("a", "b", "c"), {"source": pictures, "student": -pictures}), "an effect")
    assert markup.count("<img") == 1
    found = numpy.asarray(decoded(markup))
    assert found.shape == (16 * 2 + 1, 16 * 3 + 2, 4)
    assert (found[17:, 17:33, :3] == as_bytes(-pictures)[1]).all()
    assert (found[16, :, 3] == 0).all()
    assert 'alt="an effect. Rows: source, student. Columns: a, b, c."' in markup
    assert 'class="crisp"' in markup


def test_a_strip_shows_one_subject():
    pictures = torch.rand(3, 3, 16, 16) * 2 - 1
    found = numpy.asarray(decoded(strip(Grid(("a", "b", "c"), {"source": pictures, "student": -pictures}), 2, "x")))
    assert (found[:, :16, :3] == as_bytes(pictures)[2]).all()
    assert (found[:, 17:, :3] == as_bytes(-pictures)[2]).all()


def test_large_pictures_are_scaled_down_and_smooth():
    markup = sheet(Grid(("a",), {"source": torch.zeros(1, 3, 384, 768)}), "x")
    assert decoded(markup).size == (192, 96)
    assert "crisp" not in markup


def test_an_empty_grid_is_nothing():
    assert sheet(Grid((), {}), "x") == ""

"""Pictures: told from their headers, and loaded as tensors."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from clora_pictures.dataset import PicturesDataset
from clora_pictures.fitting import cropped, padded
from PIL import Image

from clora.api import StatesSize


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def dataset(folder: Path, *names: str, size: int | tuple[int, int] | None = None) -> PicturesDataset:
    path = folder / "general.jsonl"
    path.write_text("".join(json.dumps({"source": name, "instruction": "x"}) + "\n" for name in names))
    return PicturesDataset(general=path, size=size)


def told(found: PicturesDataset) -> list[str]:
    return [sentence.removeprefix(f"{found.general_}:") for sentence in found.check()]


def test_pictures_are_upright_on_white_from_minus_one_to_one(tmp_path):
    pixels = np.zeros((2, 3, 4), dtype=np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[1, 2] = (0, 0, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    images = dataset(tmp_path, "a.png").images(["a.png"])
    assert images.shape == (1, 3, 3, 2)
    assert images.dtype == torch.float32
    assert images[0, :, 0, 1].tolist() == [1, -1, -1]
    assert images[0, :, 2, 0].tolist() == [-1, -1, 1]
    assert images[0, :, 1, 0].tolist() == [1, 1, 1]


def test_pictures_of_one_size_are_a_batch_in_the_order_asked(tmp_path):
    for i, name in enumerate("abc"):
        Image.new("RGB", (3, 2), (i, 0, 0)).save(tmp_path / f"{name}.png")
    images = dataset(tmp_path, "a.png", "b.png", "c.png").images(["c.png", "a.png", "c.png"])
    assert images.shape == (3, 3, 2, 3)
    assert ((images[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [2, 0, 2]


def test_pictures_of_two_sizes_need_a_size(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    Image.new("RGB", (5, 2)).save(tmp_path / "b.png")
    assert told(dataset(tmp_path, "a.png", "b.png")) == [
        "2: source 'b.png' is 5 x 2, the first picture 3 x 2; give the dataset a size"
    ]
    with pytest.raises(ValueError, match=r"b\.png is 5 x 2, .*a\.png is 3 x 2; give the dataset a size"):
        dataset(tmp_path, "a.png", "b.png").images(["a.png", "b.png"])
    one, other = dataset(tmp_path, "b.png"), tmp_path / "effects.jsonl"
    other.write_text('{"source": "a.png", "effect": "ink"}')
    assert told(one) == []
    assert told(PicturesDataset(effects=other, general=one.general_)) == [
        "1: source 'b.png' is 5 x 2, the first picture 3 x 2; give the dataset a size"
    ]
    assert told(dataset(tmp_path, "a.png", "b.png", size=8)) == []
    assert dataset(tmp_path, "a.png", "b.png", size=8).images(["a.png", "b.png"]).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_pictures_lying_on_their_side_count_as_upright(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (3, 2)).save(tmp_path / f"a.{ending}", exif=exif)
    Image.new("RGB", (2, 3)).save(tmp_path / "b.png")
    found = dataset(tmp_path, f"a.{ending}", "b.png")
    assert told(found) == []
    assert found.images([f"a.{ending}", "b.png"]).shape == (2, 3, 3, 2)


def test_pictures_are_padded_with_white():
    wide = padded(-torch.ones(1, 3, 2, 4), (8, 8))
    assert wide.shape == (1, 3, 8, 8)
    assert wide[0, 0, :, 0].tolist() == [1, 1, -1, -1, -1, -1, 1, 1]
    assert padded(-torch.ones(1, 3, 4, 2), (8, 8))[0, 0, 0].tolist() == [1, 1, -1, -1, -1, -1, 1, 1]
    assert padded(-torch.ones(1, 3, 2, 4), (2, 8))[0, 0, 1].tolist() == [1, 1, -1, -1, -1, -1, 1, 1]
    same = torch.rand(1, 3, 8, 6)
    assert torch.equal(padded(same, (8, 6)), same)
    strip = padded(-torch.ones(1, 3, 1, 100_000), (4, 4))
    assert (strip == -1).sum() == 3 * 4


def test_pictures_are_cropped_to_their_middle():
    ramp = torch.linspace(-1, 1, 12)[None, None, None].expand(1, 3, 4, 12)
    assert torch.equal(cropped(ramp, (4, 4)), ramp[..., 4:8])
    assert torch.equal(cropped(ramp.mT, (4, 4)), ramp.mT[..., 4:8, :])
    assert torch.equal(cropped(ramp, (4, 12)), ramp)
    half = cropped(ramp, (2, 2))[0, 0, 0]
    torch.testing.assert_close(half.mean(), torch.tensor(0.0))  # the middle of an even ramp
    assert -0.4 < half[0] < half[1] < 0.4
    for strip in ((1, 100_000), (100_000, 1), (1, 1)):
        assert cropped(-torch.ones(1, 3, *strip), (16, 8)).tolist() == (-torch.ones(1, 3, 16, 8)).tolist()


@pytest.mark.parametrize("size", [(48, 48), (32, 64), (64, 32)])
@pytest.mark.parametrize("stored", [(300, 200), (31, 97), (20, 20), (14, 10)])
@pytest.mark.parametrize("fit", [padded, cropped])
def test_pictures_are_never_stretched(size, stored, fit):
    """A disc in the middle stays a disc: its second moments along both axes agree."""
    y, x = np.mgrid[: stored[0], : stored[1]] - (np.array(stored)[:, None, None] - 1) / 2
    disc = np.exp(-(x**2 + y**2) / (2 * (min(stored) / 14) ** 2))  # 0 at the rim
    picture = torch.from_numpy(1 - 2 * disc).float().expand(1, 3, *stored)
    ink = 1 - fit(picture, size)[0, 0].double().numpy()
    rows, columns = np.mgrid[: size[0], : size[1]] - (np.array(size)[:, None, None] - 1) / 2
    middle = [(ink * axis).sum() / ink.sum() for axis in (rows, columns)]
    spread = [(ink * (axis - at) ** 2).sum() / ink.sum() for axis, at in zip((rows, columns), middle, strict=True)]
    assert np.abs(middle).max() < 0.6
    assert spread[0] == pytest.approx(spread[1], rel=0.1)


def test_pictures_in_a_size_of_height_and_width(tmp_path):
    Image.new("RGB", (30, 10)).save(tmp_path / "a.png")
    found = dataset(tmp_path, "a.png", size=(8, 12))
    padded_there = found.images(["a.png", "a.png"])
    assert padded_there.shape == (2, 3, 8, 12)
    assert padded_there[0, 0, :, 0].round(decimals=4).tolist() == [1, 1, -1, -1, -1, -1, 1, 1]
    assert PicturesDataset(general=found.general_, size=(8, 12), fit="crop").images(["a.png"]).max() < -0.9999


@pytest.mark.parametrize("resized", [None, 8])
def test_pictures_that_cannot_be_used_are_told_from_their_headers(tmp_path, monkeypatch, resized):
    def decoding(*_: object) -> None:
        raise AssertionError("decoded")

    Image.new("RGB", (8, 8)).save(tmp_path / "whole.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoding)
    (tmp_path / "words.png").write_text("these are words")
    (tmp_path / "large.png").write_bytes(png_header(8001, 8000))
    (tmp_path / "enormous.png").write_bytes(png_header(100_000, 100_000))
    assert told(dataset(tmp_path, "whole.png", "words.png", "large.png", "enormous.png", size=resized)) == [
        f"2: source {tmp_path}/words.png is not a picture that can be read",
        f"3: source {tmp_path}/large.png has 8001 x 8000 pixels; at most 64,000,000 are read",
        f"4: source {tmp_path}/enormous.png has hundreds of millions of pixels; at most 64,000,000 are read",
    ]


def test_pictures_damaged_behind_the_header_are_told_when_loaded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    found = dataset(tmp_path, "a.png")
    assert told(found) == []
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture: "):
        found.images(["a.png"])


def test_pictures_in_two_folders_keep_their_names_apart(tmp_path):
    for folder, grey in (("one", 0), ("two", 255)):
        (tmp_path / folder).mkdir()
        Image.new("L", (2, 2), grey).save(tmp_path / folder / "a.png")
    Image.new("L", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "one/e.jsonl").write_text('{"source": "a.png", "effect": "ink", "split": "train"}')
    (tmp_path / "two/g.jsonl").write_text('{"source": "a.png", "instruction": "x", "split": "train"}')
    both = PicturesDataset(effects=tmp_path / "one/e.jsonl", general=tmp_path / "two/g.jsonl")
    names = [*both.sources("ink", "train"), *(item.source for item in both.general("train"))]
    assert names == ["one/a.png", "two/a.png"]
    assert both.images(names)[:, 0, 0, 0].tolist() == [-1, 1]
    with pytest.raises(ValueError, match=r"'secret\.png' leads out of the dataset's folder"):
        both.images(["secret.png"])


def test_pictures_linked_out_of_the_folder_since_are_refused(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for path in (tmp_path / "secret.png", data / "a.png"):
        Image.new("L", (2, 2)).save(path)
    found = dataset(data, "a.png")
    assert told(found) == []
    (data / "a.png").unlink()
    (data / "a.png").symlink_to("../secret.png")
    with pytest.raises(ValueError, match=r"a\.png' leads out of the dataset's folder"):
        found.images(["a.png"])


@pytest.mark.parametrize(("size", "stated"), [(None, None), (64, (64, 64)), ((48, 64), (48, 64))])
def test_the_stated_size_is_known_before_a_picture_is_read(
    tmp_path: Path, size: int | tuple[int, int] | None, stated: tuple[int, int] | None
) -> None:
    made = PicturesDataset(general=tmp_path / "nothing.jsonl", size=size)
    assert isinstance(made, StatesSize)
    assert made.stated_size() == stated

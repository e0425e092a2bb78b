"""Pictures of unknown origin: turned upright, laid on white, refused in plain words."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clora.errors import CloraError
from clora.files.pictures import picture_size, read_picture, write_picture


def saved(image: Image.Image, path: Path, **how) -> Path:
    image.save(path, **how)
    return path


def levels(path: Path) -> np.ndarray:
    """What read_picture gives, back in 0..255, [H, W, 3]."""
    picture = read_picture(path)
    assert picture.dtype == torch.float32
    return ((picture[0].double().permute(1, 2, 0).numpy() + 1) * 127.5).round(3)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_pixels_become_numbers_from_minus_one_to_one(tmp_path):
    pixels = np.array([[[0, 128, 255], [1, 2, 3]]], dtype=np.uint8)
    picture = read_picture(saved(Image.fromarray(pixels), tmp_path / "a.png"))
    assert picture.shape == (1, 3, 1, 2)
    np.testing.assert_allclose(picture[0].permute(1, 2, 0).numpy(), pixels / 127.5 - 1, atol=1e-6)


#: EXIF orientation -> how the upright picture comes from the stored one
UPRIGHT = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_undone(tmp_path, orientation):
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(stored), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(levels(path), UPRIGHT[orientation](stored))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("LA", (0, 51), (204, 204, 204)),
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_what_is_transparent_lies_on_white(tmp_path, mode, colour, expected):
    path = saved(Image.new(mode, (3, 2), colour), tmp_path / "a.png")
    np.testing.assert_allclose(levels(path), np.broadcast_to(expected, (2, 3, 3)), atol=1)


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    path = saved(image, tmp_path / "a.png", transparency=0)
    assert levels(path).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_cmyk_is_turned_into_rgb(tmp_path):
    path = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(levels(path), np.broadcast_to((255, 0, 0), (8, 8, 3)), atol=3)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_keep_their_brightness(tmp_path, ending):
    grey = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    path = saved(Image.fromarray(grey), tmp_path / f"a.{ending}")
    np.testing.assert_allclose(levels(path)[0, :, 0], [0, 1, 127.5, 255], atol=0.5)


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_a_png_of_sixteen_bits_a_channel(tmp_path, kind, channels):
    """Pillow writes none of colour, so the file is made here."""
    wide = np.array([0, 257, 32768, 50000, 65535])
    pixels = np.repeat(wide[None, :, None], channels, axis=2)
    if channels in (2, 4):
        pixels[..., -1] = 32768  # half of the white below it shows
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    alpha = 32768 / 65535 if channels in (2, 4) else 1.0
    expected = alpha * wide / 257 + (1 - alpha) * 255
    for channel in range(3):
        np.testing.assert_allclose(levels(tmp_path / "a.png")[0, :, channel], expected, atol=1.5)


def test_a_palette_with_half_transparent_colours_lies_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    path = saved(image, tmp_path / "a.png", transparency=bytes([51, 255]))
    np.testing.assert_allclose(levels(path)[0], [[255, 204, 204], [0, 0, 255]], atol=1)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_is_read(tmp_path, ending):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    how = {} if ending == "tif" else {"duration": 50}
    path = saved(first, tmp_path / f"a.{ending}", save_all=True, append_images=[second], **how)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert picture_size(path) == (8, 8)
    np.testing.assert_allclose(levels(path), np.broadcast_to((255, 0, 0), (8, 8, 3)), atol=3)


def test_float_pixels_are_refused(tmp_path):
    path = saved(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), tmp_path / "a.tif")
    for asked in (read_picture, picture_size):
        with pytest.raises(CloraError, match=r"a\.tif has floating-point pixels; save it with 8 or 16 bits"):
            asked(path)


def test_what_another_program_would_have_to_run_is_no_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    for asked in (read_picture, picture_size):
        with pytest.raises(CloraError, match=r"a\.png is not a picture that can be read"):
            asked(path)


def test_a_single_pixel_is_a_picture(tmp_path):
    assert levels(saved(Image.new("RGB", (1, 1), (7, 8, 9)), tmp_path / "a.png")).tolist() == [[[7, 8, 9]]]


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (20_000, 10_000), (9000, 9000), (8001, 8000)])
def test_an_enormous_picture_is_refused_from_its_header(tmp_path, monkeypatch, width, height):
    def decoding(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoding)
    path = tmp_path / "a.png"
    path.write_bytes(png_header(width, height))
    for asked in (read_picture, picture_size):
        with pytest.raises(CloraError, match=r"a\.png .* pixels"):
            asked(path)


def test_what_is_no_picture_is_told_plainly(tmp_path):
    (tmp_path / "words.png").write_text("these are words")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CloraError, match=r"words\.png is not a picture"):
        read_picture(tmp_path / "words.png")
    with pytest.raises(CloraError, match=r"empty\.png is not a picture"):
        read_picture(tmp_path / "empty.png")
    with pytest.raises(CloraError, match=r"missing\.png does not exist"):
        read_picture(tmp_path / "missing.png")
    with pytest.raises(CloraError, match="folder cannot be read as a picture"):
        read_picture(tmp_path / "folder")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_picture_is_told_plainly(tmp_path, ending, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / f"a.{ending}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CloraError, match=r"a\.\w+ (cannot be read as|is not) a picture"):
        read_picture(path)


def test_what_is_written_is_read_again(tmp_path):
    pixels = torch.arange(3 * 16 * 16, dtype=torch.float32).reshape(3, 16, 16) % 256
    path = tmp_path / "made" / "a.png"
    write_picture(path, pixels / 127.5 - 1)
    np.testing.assert_array_equal(levels(path), pixels.permute(1, 2, 0).numpy())
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_numbers_beyond_the_bounds_are_clamped(tmp_path):
    write_picture(tmp_path / "a.png", torch.tensor([-3.0, 0.0, 3.0]).reshape(3, 1, 1))
    assert levels(tmp_path / "a.png").tolist() == [[[0, 128, 255]]]

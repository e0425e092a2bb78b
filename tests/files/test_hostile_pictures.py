"""Picture files that lie, bomb or drip: refused or read within the bounds, and nothing in them reaches a terminal."""

from __future__ import annotations

import os
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image, TiffImagePlugin

from clora.files.pictures import PictureError, picture_digest, picture_size, read_picture

HOSTILE = "\x1b[2J\u202eevil"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*more: bytes, width: int = 4, height: int = 4) -> bytes:
    """A PNG of one colour with more chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + b"\x40" * 3 * width) * height)
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def saved(kind: str, **how: object) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(buffer, kind, **how)
    return buffer.getvalue()


def tiff(**tags: object) -> bytes:
    """A TIFF with tags of one's own."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[int(name.removeprefix("t"))] = value
    return saved("TIFF", tiffinfo=info)


def gif(width: int, height: int, frame: tuple[int, int]) -> bytes:
    """A GIF that claims a screen and a frame of other sizes."""
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\xf0\0\0" + b"\0\0\0\xff\xff\xff"
    return head + b"," + struct.pack("<HHHH", 0, 0, *frame) + b"\0\x02\x02\x4c\x01\0;"


def exif(orientation: object) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return saved("JPEG", exif=made)


#: files that are refused from their header by both functions, with a part of the sentence
REFUSED: dict[str, tuple[bytes, str]] = {
    "a PNG of text that is a bomb": (
        png(chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 50_000_000))),
        "cannot be read as a picture: Decompressed data too large",
    ),
    "a GIF with a small screen and an enormous frame": (gif(4, 4, (60_000, 60_000)), "pixels; at most 64,000,000"),
    "a GIF with an enormous screen": (gif(60_000, 60_000, (4, 4)), "pixels; at most 64,000,000"),
    "a BMP of nine gigapixels": (
        b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 95_000, 95_000, 1, 24, *[0] * 6),
        "pixels; at most 64,000,000",
    ),
    "a PPM of nine gigapixels": (b"P6 95000 95000 255\n", "pixels; at most 64,000,000"),
    "a PPM with a token without end": (
        b"P6 " + b"9" * 5000 + b" 1 255\n",
        "Token too long in file header",
    ),
    "words that steer a terminal": (HOSTILE.encode() * 1000, "is not a picture that can be read"),
    "no bytes": (b"", "is not a picture that can be read"),
    "a broken chunk": (png()[:40] + b"\0\0\0\4\x1b[2J" + png()[40:], "a picture"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_lies_about_its_size_is_refused_in_plain_words(tmp_path, kind, capfd):
    content, sentence = REFUSED[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for asked in (picture_size, read_picture, picture_digest):
        tracemalloc.start()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with pytest.raises(PictureError) as caught:
                asked(path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sentence in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 600
        assert warned == []
        assert most < 200 << 20
    assert capfd.readouterr() == ("", "")


#: files that are read, whatever else stands in them
READ: dict[str, Callable[[], bytes]] = {
    **{f"orientation {o!r}": (lambda o=o: exif(o)) for o in (0, 9, 255, 65535)},
    "a comment": lambda: png(chunk(b"tEXt", b"Comment\0" + HOSTILE.encode())),
    "a short EXIF": lambda: png(chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0" * 4)),
    "XMP": lambda: png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<tiff:Orientation>9</tiff:Orientation>" * 9)),
    "a colour profile that is none": lambda: png(chunk(b"iCCP", b"x\0\0" + zlib.compress(b"profile" * 1000))),
    "a large colour profile": lambda: saved("JPEG", icc_profile=b"p" * 400_000),
    "a TIFF of odd tags": lambda: tiff(t270=HOSTILE.encode("unicode_escape").decode(), t305="x" * 5000),
    "a GIF of many frames": lambda: saved(
        "GIF", save_all=True, append_images=[Image.new("RGB", (4, 4), (n, n, n)) for n in range(100)]
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_what_stands_around_the_pixels_is_not_believed_or_repeated(tmp_path, kind, capfd):
    path = tmp_path / "a.png"
    path.write_bytes(READ[kind]())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            assert picture_size(path) == (4, 4)
            assert read_picture(path).shape == (1, 3, 4, 4)
        except PictureError as error:
            refused = str(error)
        else:
            refused = ""
    assert refused.isprintable()
    assert "evil" not in refused
    assert warned == []
    assert capfd.readouterr() == ("", "")


def test_a_tile_larger_than_the_picture_is_refused(tmp_path):
    """Width, height, bits, compression, black is 0, samples, the tile's sides, where it lies, its bytes."""
    tags = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 200, 325: 16}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path = tmp_path / "a.tif"
    path.write_bytes((b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries).ljust(300, b"\0"))
    with Image.open(path) as image:
        assert image.size == (4, 4)
    for asked in (picture_size, read_picture):
        with pytest.raises(PictureError, match=r"a\.tif is a TIFF with a tile of more than 64,000,000 pixels"):
            asked(path)


def test_a_file_of_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png())
    os.truncate(path, (1 << 30) + 1)  # sparse: takes no room
    with pytest.raises(PictureError, match=r"a\.png is larger than 1024 MB; save it with compression"):
        picture_size(path)


@pytest.mark.parametrize("name", ["\x1b[2Ja.png", "\u202egnp.a", "x" * 200 + ".png"])
def test_a_files_own_name_is_told_escaped(tmp_path, name):
    (tmp_path / name).write_bytes(b"words")
    for asked in (picture_size, read_picture):
        with pytest.raises(PictureError) as caught:
            asked(tmp_path / name)
        assert str(caught.value).isprintable()


def test_a_pipe_is_no_picture_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for asked in (picture_size, read_picture, picture_digest):
        with pytest.raises(PictureError, match=r"a\.png is no file but a named pipe"):
            asked(tmp_path / "a.png")


def test_the_digest_is_of_the_pixels_alone(tmp_path):
    Image.new("RGB", (4, 2), (1, 2, 3)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 2), (1, 2, 3)).save(tmp_path / "b.tif")
    Image.new("RGB", (2, 4), (1, 2, 3)).save(tmp_path / "c.png")
    Image.new("RGB", (4, 2), (1, 2, 4)).save(tmp_path / "d.png")
    digests = [picture_digest(tmp_path / name) for name in ("a.png", "b.tif", "c.png", "d.png")]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3

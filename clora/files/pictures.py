"""Pictures of unknown origin in, PNG out: sizes are checked before anything is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from clora.errors import CloraError, reason, shown
from clora.files.atomic import write_atomic
from clora.files.named_files import not_a_file, open_file

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MAX_PIXELS = 64_000_000  # 8000 x 8000: larger than any camera's, far below what exhausts memory
MAX_BYTES = 1 << 30  # twice what so many pixels take without compression, four channels of 16 bits
_TILE_SIDES = (322, 323)  # TIFF tags: one tile is decoded whole, however little of it the picture shows
#: what is opened; Pillow knows more, and hands some of it, such as EPS, to another program to run
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_LYING = frozenset({5, 6, 7, 8})  # EXIF orientations that swap height and width


class PictureError(CloraError, ValueError):
    """A picture that cannot be used; the message names it and says why."""


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture once it is turned upright, from its header alone.

    Raises PictureError as `read_picture` does, but for damage that only decoding finds.
    """
    from PIL import ExifTags

    with _opened(path) as image:
        # A PNG may say behind its pixels how it was held; asking for that here would decode them. Of a TIFF, Pillow
        # tells the size upright.
        known = "exif" in image.info if image.format == "PNG" else image.format != "TIFF"
        turned = known and image.getexif().get(ExifTags.Base.Orientation, 1) in _LYING
        return image.size if turned else (image.height, image.width)


def read_picture(path: Path) -> torch.Tensor:
    """A picture file as RGB on white, turned upright, float32 [1, 3, H, W] in [-1, 1]; an animation's first frame.

    Raises PictureError for a file that is missing, no picture, damaged, larger than 64 megapixels, or of float pixels.
    """
    return _pixels(_upright(path))


def from_image(image: Image) -> torch.Tensor:
    """A picture in memory as `read_picture` gives one of a file. Raises PictureError as it does."""
    from PIL import ImageOps

    _check(image, "the picture")
    return _pixels(_on_white(_eight_bit(ImageOps.exif_transpose(image))))


def to_image(picture: torch.Tensor) -> Image:
    """[3, H, W] in [-1, 1] as a picture in memory."""
    from PIL import Image

    pixels = ((picture + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels)


def _pixels(image: Image) -> torch.Tensor:
    """An RGB picture as float32 [1, 3, H, W] in [-1, 1]."""
    import numpy
    import torch

    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def picture_digest(path: Path) -> bytes:
    """Sixteen bytes that stand for what `read_picture` gives. Raises PictureError as it does."""
    picture = _upright(path)
    digest = blake2b(repr(picture.size).encode(), digest_size=16)
    digest.update(picture.tobytes())
    return digest.digest()


def _upright(path: Path) -> Image:
    """The picture in 8-bit RGB on white."""
    from PIL import ImageOps

    with _opened(path) as image:
        return _on_white(_eight_bit(ImageOps.exif_transpose(image)))


def _on_white(image: Image) -> Image:
    """The picture in RGB, what is transparent white."""
    from PIL import Image

    upright = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The picture with its header read and its size allowed; what goes wrong until it is closed is a PictureError."""
    from PIL import Image, UnidentifiedImageError

    name = shown(path)
    wrong = not_a_file(path)
    if wrong is not None:
        raise PictureError(f"{name} {'cannot be read as a picture: it ' if wrong == 'is a folder' else ''}{wrong}")
    try:
        # Pillow's warnings repeat what the file says of itself; our own bound is below that of its other warning.
        with warnings.catch_warnings(), open_file(path) as file:
            warnings.simplefilter("ignore")
            if path.stat().st_size > MAX_BYTES:
                raise PictureError(f"{name} is larger than {MAX_BYTES >> 20} MB; save it with compression")
            with Image.open(file, formats=_formats()) as image:
                _check(image, name)
                yield image
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"{name} is not a picture that can be read") from None
    except Image.DecompressionBombError:  # Pillow does not say the size
        raise PictureError(f"{name} has hundreds of millions of pixels; at most {MAX_PIXELS:,} are read") from None
    except Exception as error:  # on broken files decoders raise anything: SyntaxError, IndexError, struct.error
        told = reason(getattr(error, "strerror", None) or error)
        raise PictureError(f"{name} cannot be read as a picture: {told}") from error


def _check(image: Image, name: str) -> None:
    """Raise PictureError for what is not decoded."""
    width, height = image.size
    if image.mode == "F":  # converting it would cut all that is not 0..255
        raise PictureError(f"{name} has floating-point pixels; save it with 8 or 16 bits")
    if width * height > MAX_PIXELS:
        raise PictureError(f"{name} has {width} x {height} pixels; at most {MAX_PIXELS:,} are read")
    tags = image.tag_v2 if image.format == "TIFF" else {}  # pyright: ignore[reportAttributeAccessIssue]
    sides = [tags.get(tag, 1) for tag in _TILE_SIDES]
    if not all(isinstance(side, int) for side in sides) or sides[0] * sides[1] > MAX_PIXELS:
        raise PictureError(f"{name} is a TIFF with a tile of more than {MAX_PIXELS:,} pixels")


@cache
def _formats() -> tuple[str, ...]:
    """Those of our formats that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _eight_bit(image: Image) -> Image:
    """A 16-bit grey picture in 8 bits (Pillow would cut all but the darkest 256 of its levels to white)."""
    import numpy
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    grey = numpy.asarray(image).clip(0, 65535) / 257  # Pillow gives some 16-bit PNGs as 32-bit "I"
    return Image.fromarray(grey.round().astype(numpy.uint8))


def write_picture(path: Path, picture: torch.Tensor) -> None:
    """Write [3, H, W] in [-1, 1] as PNG, in one step."""
    buffer = BytesIO()
    to_image(picture).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())

"""Pictures of unknown origin in, PNG out: sizes are checked before anything is decoded."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from clora.errors import CloraError
from clora.files import write_atomic

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MAX_PIXELS = 64_000_000  # 8000 x 8000: larger than any camera's, far below what exhausts memory


def read_picture(path: Path) -> torch.Tensor:
    """A picture file as RGB on white, turned upright, float32 [1, 3, H, W] in [-1, 1].

    Raises CloraError for a file that is missing, no picture, damaged, or larger than 64 megapixels.
    """
    import numpy
    import torch
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise CloraError(f"{path} has {width} x {height} pixels; at most {MAX_PIXELS:,} are read")
            upright = _eight_bit(ImageOps.exif_transpose(image)).convert("RGBA")
    except FileNotFoundError:
        raise CloraError(f"{path} does not exist") from None
    except UnidentifiedImageError:
        raise CloraError(f"{path} is not a picture that can be read") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CloraError(f"{path} cannot be read as a picture: {error}") from error
    on_white = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    pixels = torch.from_numpy(numpy.array(on_white)).permute(2, 0, 1)
    return pixels[None].float() / 127.5 - 1


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
    from PIL import Image

    pixels = ((picture + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())

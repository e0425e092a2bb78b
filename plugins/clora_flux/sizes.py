"""The sizes that Kontext edits."""

from __future__ import annotations

import torch


def size_of(height: int, width: int, side: int | None, multiple: int) -> tuple[int, int]:
    """(height, width) for a picture of this size: multiples of `multiple` with about its aspect ratio.

    Without `side` one of the pipeline's preferred resolutions of about a megapixel; with it any aspect of side x side
    pixels.
    """
    from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

    height, width = (max(side // multiple, 1) * multiple for side in (height, width))  # the pipeline cuts first
    aspect = width / height
    if side is None:
        _, wide, high = min((abs(aspect - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
    else:
        wide, high = round(side * aspect**0.5), round(side / aspect**0.5)
    return max(high // multiple, 1) * multiple, max(wide // multiple, 1) * multiple


def code(side: int | None, multiple: int) -> list[str]:
    """The lines of Python that do `fit`'s work on a Pillow picture `source`, for a model card."""
    aspect = f"aspect = (source.width // {multiple}) / (source.height // {multiple})"
    if side is None:
        sizes = [
            "from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS as preferred",
            aspect,
            "_, width, height = min((abs(aspect - w / h), w, h) for w, h in preferred)",
        ]
    else:
        sizes = [
            aspect,
            f"width = max(round({side} * aspect**0.5) // {multiple}, 1) * {multiple}",
            f"height = max(round({side} / aspect**0.5) // {multiple}, 1) * {multiple}",
        ]
    return ["from PIL import Image", *sizes, "source = source.resize((width, height), Image.Resampling.LANCZOS)"]


def fit(picture: torch.Tensor, side: int | None, multiple: int) -> torch.Tensor:
    """A picture [1, 3, H, W] in [-1, 1], taken as 8 bits and resized by Pillow's Lanczos as the pipeline does."""
    import numpy as np
    from PIL import Image

    height, width = size_of(picture.shape[-2], picture.shape[-1], side, multiple)
    bytes_ = ((picture[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    resized = Image.fromarray(bytes_).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].to(picture.device).float() / 127.5 - 1

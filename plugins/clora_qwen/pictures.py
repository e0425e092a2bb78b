"""Pictures as Qwen-Image-Edit's pipelines take them: eight bits, sizes in multiples of 32, Pillow's Lanczos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from PIL.Image import Image

#: of the square whose area the text encoder's picture has in the editions since 2509
CONDITION_SIDE = 384


def size_of(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) in multiples of 32 with about this aspect ratio and the area of a square of `side`."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions

    wide, high = calculate_dimensions(side * side, width / height)
    return max(int(wide), 32), max(int(high), 32)  # a strip would have no height


def to_image(picture: torch.Tensor) -> Image:
    """A picture [3, H, W] in [-1, 1] in eight bits: what a person would hand to the pipeline."""
    from PIL import Image

    codes = ((picture.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(codes.permute(1, 2, 0).numpy())


def to_tensor(image: Image) -> torch.Tensor:
    """The picture [1, 3, H, W] float32 in [-1, 1] as the pipeline makes it for its VAE, at the image's own size."""
    return _processor().preprocess(image, image.height, image.width)


def resized(image: Image, side: int) -> Image:
    """The picture at about the area of a square of `side`, as the pipeline resizes it."""
    width, height = size_of(image.width, image.height, side)
    return _processor().resize(image, height, width)  # pyright: ignore[reportReturnType] - an image for an image


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Latents [B, C, h, w] -> tokens [B, h/2 * w/2, 4 C], each of 2 x 2 latents."""
    rows, channels, height, width = latents.shape
    squares = latents.reshape(rows, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(rows, (height // 2) * (width // 2), channels * 4)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens [B, h/2 * w/2, 4 C] -> latents [B, C, h, w]."""
    rows, _, channels = tokens.shape
    squares = tokens.reshape(rows, height // 2, width // 2, channels // 4, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(rows, channels // 4, height, width)


def _processor():
    from diffusers.image_processor import VaeImageProcessor

    return VaeImageProcessor(vae_scale_factor=16)

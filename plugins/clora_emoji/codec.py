"""The VAE's stand-in: 4 x 4 patches of pixels become channels, without loss."""

from __future__ import annotations

import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

PATCH = 4


def to_latents(pixels: torch.Tensor) -> torch.Tensor:
    """Return latents [B, 48, 8, 8] of pixels [B, 3, 32, 32]; both in [-1, 1]."""
    return pixel_unshuffle(pixels, PATCH)


def to_pixels(latents: torch.Tensor) -> torch.Tensor:
    """Return pixels [B, 3, 32, 32] of latents [B, 48, 8, 8], the exact inverse of ``to_latents``."""
    return pixel_shuffle(latents, PATCH)

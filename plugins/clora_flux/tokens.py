"""FLUX's way from latents to tokens: patches of 2 x 2, and a position [3] for every token."""

from __future__ import annotations

import torch


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Latents [B, C, h, w] -> tokens [B, h/2 * w/2, 4 C], row by row; channels first within a patch."""
    rows, channels, height, width = latents.shape
    patches = latents.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(rows, height // 2 * (width // 2), 4 * channels)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens [B, h/2 * w/2, 4 C] -> latents [B, C, h, w]."""
    rows, _, channels = tokens.shape
    patches = tokens.reshape(rows, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(rows, channels // 4, height, width)


def positions(latents: torch.Tensor, picture: int) -> torch.Tensor:
    """(picture, row, column) of every token of latents [B, C, h, w], [h/2 * w/2, 3] in the latents' type.

    `picture` is 0 for the one that is made and 1 for the reference.
    """
    height, width = latents.shape[-2] // 2, latents.shape[-1] // 2
    found = torch.zeros(height, width, 3)
    found[..., 0] = picture
    found[..., 1] = torch.arange(height)[:, None]
    found[..., 2] = torch.arange(width)[None, :]
    return found.reshape(-1, 3).to(latents.device, latents.dtype)

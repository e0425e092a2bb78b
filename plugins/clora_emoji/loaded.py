"""The emoji world's model in memory: what the core asks of a loaded backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import interpolate, pad

from clora.api import Conditions, Schedule, TextEmbeddings

from . import codec, network, words
from .model_config import SHIFT


class LoadedEmoji:
    """The model in memory, with hashed words for a text encoder and patches for a VAE."""

    def __init__(self, transformer: torch.nn.Module, device: torch.device) -> None:
        self.network = transformer.requires_grad_(False).to(device)

    def fit(self, picture: torch.Tensor) -> torch.Tensor:
        """A picture [1, 3, H, W] padded with white to a square and resized to [1, 3, 32, 32]."""
        height, width = picture.shape[-2:]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = pad(picture, (left, side - width - left, top, side - height - top), value=1.0)
        return interpolate(square, (32, 32), mode="bilinear", antialias=True, align_corners=False).clamp(-1, 1)

    def encode_prompts(self, prompts: Sequence[str], images: torch.Tensor) -> TextEmbeddings:
        """Words [B] -> text [B, L, 128], mask [B, L]; these words do not depend on the pictures."""
        return TextEmbeddings(*words.encode(prompts))

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures [B, 3, 32, 32] -> latents [B, 48, 8, 8]."""
        return codec.to_latents(images)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 48, 8, 8] -> pictures [B, 3, 32, 32], clamped to [-1, 1]."""
        return codec.to_pixels(latents).clamp(-1, 1)

    def blocks(self) -> Sequence[torch.nn.Module]:
        """The transformer's blocks."""
        return list(self.network.transformer_blocks)  # pyright: ignore[reportArgumentType]

    def features(self, output: Any, x_sigma: torch.Tensor) -> torch.Tensor:
        """The 64 tokens [B, 64, D] of the picture being made; a block gives words, and these before the source's."""
        return output[1][:, : x_sigma.shape[-2] * x_sigma.shape[-1]]

    def schedule(self, steps: int, latents: torch.Tensor) -> Schedule:
        """The levels of as many steps for 64 tokens, what `teacher.shift: null` samples at."""
        return Schedule.shifted(steps, SHIFT)

    def velocity(self, x_sigma: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """eps - x0 at x_sigma [B, 48, 8, 8], sigma [B]."""
        text, mask, source = conditions.text, conditions.mask, conditions.source
        return network.velocity(self.network, x_sigma, sigma, text, mask, source)

"""A small patch discriminator on noised latents."""

from __future__ import annotations

import torch
from torch import nn


class Discriminator(nn.Module):
    """Three convolutions over (x_sigma, sigma): a logit for every patch, averaged to one for every row.

    Input: x_sigma [R, C, H, W] of any H, W of at least 4, sigma [R]. Output: logits [R]; above zero for the teacher's.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, x_sigma: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The logits [R] of x_sigma [R, C, H, W] at the noise levels sigma [R]."""
        level = sigma.to(x_sigma).reshape(-1, 1, 1, 1).expand(-1, 1, *x_sigma.shape[2:])
        return self.layers(torch.cat([x_sigma, level], dim=1)).mean((1, 2, 3))

"""Small discriminators: one on patches of noised latents, one on tokens of a transformer block."""

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


class TokenDiscriminator(nn.Module):
    """A perceptron on every token of a block's features: its logits averaged to one for every row.

    Input: features [R, L, D] and sigma [R]. Output: logits [R]; above zero for the teacher's.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # features of large transformers have outliers of several hundred: the norm brings them to one scale
        self.norm = nn.LayerNorm(channels)
        self.layers = nn.Sequential(nn.Linear(channels + 1, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, features: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The logits [R] of features [R, L, D] at the noise levels sigma [R]."""
        tokens = self.norm(features.to(self.norm.weight.dtype))
        level = sigma.to(tokens).reshape(-1, 1, 1).expand(-1, tokens.shape[1], 1)
        return self.layers(torch.cat([tokens, level], dim=2)).mean((1, 2))

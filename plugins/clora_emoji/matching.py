"""Flow matching, shared by the base's training and the teachers'."""

from __future__ import annotations

import attrs
import torch

from . import network, words


@attrs.frozen
class Examples:
    """A batch of edits: sources and targets as latents [B, 48, 8, 8], and one prompt each."""

    source: torch.Tensor
    target: torch.Tensor
    prompts: tuple[str, ...]


@attrs.frozen
class Noise:
    """How noise levels are drawn: a share of them shifted towards noise by ``shift``, the rest uniform."""

    shift: float
    shifted_share: float

    def draw(self, count: int, rng: torch.Generator) -> torch.Tensor:
        """Return noise levels [count] in [0, 1)."""
        u = torch.rand(count, generator=rng)
        shifted = self.shift * u / (1 + (self.shift - 1) * u)
        return torch.where(torch.rand(count, generator=rng) < self.shifted_share, shifted, u)


def flow_matching_loss(
    model: torch.nn.Module, examples: Examples, noise: Noise, text_length: int, rng: torch.Generator
) -> torch.Tensor:
    """Return the mean squared error between the predicted velocity and eps - x0, a scalar.

    Prompts are padded to ``text_length`` tokens; raises ValueError when one is longer.
    """
    text, mask = words.encode(examples.prompts, length=text_length)
    sigma = noise.draw(len(examples.prompts), rng)
    eps = torch.randn(examples.target.shape, generator=rng)
    level = sigma.view(-1, 1, 1, 1)
    x_sigma = (1 - level) * examples.target + level * eps
    predicted = network.velocity(model, x_sigma, sigma, text, mask, examples.source)
    return (predicted.float() - (eps - examples.target)).square().mean()

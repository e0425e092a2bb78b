"""The many-step sampler that measures a model or a teacher: plain Euler over evenly shifted noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from . import codec, network, words


@torch.no_grad()
def euler(
    model: torch.nn.Module,
    source: torch.Tensor,
    prompts: Sequence[str],
    *,
    seed: int,
    steps: int = 20,
    guidance_scale: float = 1.0,
    shift: float = 3.0,
) -> torch.Tensor:
    """Return edited pictures [B, 3, 32, 32] in [-1, 1] of the pictures ``source``, one prompt each.

    Noise is drawn on the CPU from ``seed``; a guidance scale other than 1 also asks for the empty prompt.
    """
    text, mask = words.encode(prompts)
    empty, empty_mask = words.encode([""] * len(prompts))
    latents = codec.to_latents(source)
    x = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    u = torch.linspace(1, 0, steps + 1)
    sigmas = shift * u / (1 + (shift - 1) * u)
    for now, after in pairwise(sigmas.unbind()):
        sigma = now.expand(len(x))
        v = network.velocity(model, x, sigma, text, mask, latents)
        if guidance_scale != 1.0:
            without = network.velocity(model, x, sigma, empty, empty_mask, latents)
            v = without + guidance_scale * (v - without)
        x = x + (after - now) * v
    return codec.to_pixels(x).clamp(-1, 1)

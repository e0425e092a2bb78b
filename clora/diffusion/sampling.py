"""Samplers: the student's few steps with fresh noise between them, the teacher's many with guidance."""

from __future__ import annotations

from collections.abc import Callable

import torch

from clora.diffusion.flow import Schedule, add_noise, guide, to_x0
from clora.diffusion.rng import Normal

#: (x_sigma [B, C, H, W], sigma [B]) -> velocity [B, C, H, W]
Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: (conditional, unconditional velocity [B, C, H, W], guidance_scale) -> guided velocity
Guided = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


@torch.no_grad()
def few_step(velocity: Velocity, like: torch.Tensor, schedule: Schedule, rng: Normal) -> torch.Tensor:
    """The student's sampler: predict x0, re-noise to the next level with fresh noise (method: inference, CFG 1).

    `like` gives the latents' shape [B, C, H, W], type and device; one forward a step.
    """
    x_sigma = rng.normal("noise/0", like)
    x0 = x_sigma
    for i, level in enumerate(schedule.sigmas):
        sigma = torch.full((like.shape[0],), level, device=like.device)
        x0 = to_x0(x_sigma, velocity(x_sigma, sigma), sigma)
        if i + 1 < len(schedule):
            after = torch.full_like(sigma, schedule.after(i))
            x_sigma = add_noise(x0, rng.normal(f"noise/{i + 1}", like), after)
    return x0


@torch.no_grad()
def euler(
    conditional: Velocity,
    unconditional: Velocity | None,
    like: torch.Tensor,
    schedule: Schedule,
    guidance_scale: float,
    rng: Normal,
    guided: Guided = guide,
) -> torch.Tensor:
    """The teacher's sampler: Euler steps along the guided velocity u + w (c - u); returns x0 like `like`.

    Two forwards a step, or one where `unconditional` is None (w = 1). `guided` is the model's own rule, if it has one.
    """
    x = rng.normal("noise/0", like)
    for i, level in enumerate(schedule.sigmas):
        sigma = torch.full((like.shape[0],), level, device=like.device)
        velocity = conditional(x, sigma)
        if unconditional is not None:
            velocity = guided(velocity, unconditional(x, sigma), guidance_scale)
        x = x + (schedule.after(i) - level) * velocity
    return x

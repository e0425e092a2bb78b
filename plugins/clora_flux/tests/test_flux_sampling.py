"""Whole samplings equal the stock pipeline's own call on the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from clora_flux.loaded import LoadedFlux
from clora_flux.tokens import pack, unpack
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline
from diffusers.schedulers import scheduling_flow_match_euler_discrete as scheduling

from clora.api import Conditions, Schedule, StepRng
from clora.diffusion.sampling import euler, few_step

Photo = Callable[[int, int], tuple[Any, torch.Tensor]]
Condition = Callable[[Sequence[str], torch.Tensor], Conditions]
DRAWS = StepRng(5)


def _velocity(loaded: LoadedFlux, conditions: Conditions, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return loaded.velocity(x, sigma, conditions)


def _stock(pipe: FluxKontextPipeline, noise: torch.Tensor, **arguments: Any) -> torch.Tensor:
    """The pipeline's latents [1, 16, h, w] for a picture as large as its output."""
    height, width = 8 * noise.shape[-2], 8 * noise.shape[-1]
    size = {"height": height, "width": width, "max_area": height * width, "_auto_resize": False}
    made = pipe(latents=pack(noise), output_type="latent", guidance_scale=2.5, **size, **arguments).images
    return unpack(made, *noise.shape[-2:])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 80)])
@pytest.mark.parametrize("true_cfg_scale", [1.0, 3.5])
def test_the_teachers_sampler_is_the_stock_call(
    pipe: FluxKontextPipeline,
    loaded: LoadedFlux,
    condition: Condition,
    photo: Photo,
    height: int,
    width: int,
    true_cfg_scale: float,
) -> None:
    image, picture = photo(height, width)
    like = torch.empty(1, 16, height // 8, width // 8)
    conditional = partial(_velocity, loaded, condition(["make it"], picture))
    without = None if true_cfg_scale == 1 else partial(_velocity, loaded, condition([""], picture))
    schedule = loaded.schedule(5, like)
    ours = euler(conditional, without, like, schedule, true_cfg_scale, DRAWS)
    stock = _stock(
        pipe,
        DRAWS.normal("noise/0", like),
        image=image,
        prompt="make it",
        negative_prompt="",
        true_cfg_scale=true_cfg_scale,
        num_inference_steps=5,
    )
    assert torch.tensor(schedule.sigmas).equal(pipe.scheduler.sigmas[:-1])
    torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4)


def test_larger_pictures_are_shifted_towards_noise(loaded: LoadedFlux) -> None:
    small, large = (loaded.schedule(4, torch.empty(1, 16, side, side)) for side in (32, 128))
    assert small.sigmas[0] == large.sigmas[0] == 1.0
    # mu is base_shift at 256 tokens and max_shift at 4096; u -> e^mu / (e^mu + 1/u - 1)
    for schedule, mu in ((small, 0.5), (large, 1.15)):
        e = torch.tensor(mu, dtype=torch.float64).exp()
        u = torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.float64)
        torch.testing.assert_close(torch.tensor(schedule.sigmas).double(), e / (e + 1 / u - 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 32)])
def test_the_students_sampler_is_the_stock_call_with_its_scheduler(
    pipe: FluxKontextPipeline, loaded: LoadedFlux, condition: Condition, photo: Photo, height: int, width: int
) -> None:
    image, picture = photo(height, width)
    like = torch.empty(1, 16, height // 8, width // 8)
    steps, shift = 4, 3.0
    ours = few_step(
        partial(_velocity, loaded, condition(["make it"], picture)), like, Schedule.shifted(steps, shift), DRAWS
    )
    served = FluxKontextPipeline(
        **{
            **pipe.components,
            "scheduler": FlowMatchEulerDiscreteScheduler(
                shift=shift, use_dynamic_shifting=False, stochastic_sampling=True
            ),
        }
    )
    served.set_progress_bar_config(disable=True)
    fresh = iter([*(pack(DRAWS.normal(f"noise/{i}", like)) for i in range(1, steps)), torch.zeros(1)])
    with patch.object(scheduling, "randn_tensor", side_effect=lambda *args, **kwargs: next(fresh)) as drawn:
        stock = _stock(served, DRAWS.normal("noise/0", like), image=image, prompt="make it", num_inference_steps=steps)
    assert drawn.call_count == steps
    torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4)
    assert (ours - DRAWS.normal("noise/0", like)).abs().max() > 0.1

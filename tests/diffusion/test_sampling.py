"""Samplers against plain loops in float64 with velocities known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clora.diffusion.flow import Schedule
from clora.diffusion.rng import StepRng
from clora.diffusion.sampling import euler, few_step

LEVELS = [1.0, 0.9, 0.75, 0.5]  # four steps, shift 3
LIKE = torch.empty(3, 2, 4, 4, dtype=torch.float64)
SCHEDULE = Schedule.shifted(4, 3.0)
DRAWS = StepRng(5).named("sample")


def noise(i: int) -> np.ndarray:
    return DRAWS.normal(f"noise/{i}", LIKE).numpy()


class Linear:
    """v = a x + b sigma + c, counting its calls."""

    def __init__(self, a: float, b: float, c: float) -> None:
        self.numbers = a, b, c
        self.levels: list[list[float]] = []

    def __call__(self, x_sigma: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        self.levels.append(sigma.tolist())
        a, b, c = self.numbers
        return a * x_sigma + b * sigma.double().reshape(-1, 1, 1, 1) + c

    def plain(self, x: np.ndarray, sigma: float) -> np.ndarray:
        a, b, c = self.numbers
        return a * x + b * sigma + c


def test_few_step_predicts_x0_and_adds_fresh_noise():
    student = Linear(0.3, 0.2, -0.1)
    x = noise(0)
    for i, sigma in enumerate(LEVELS):
        x0 = x - sigma * student.plain(x, sigma)
        if i < 3:
            x = (1 - LEVELS[i + 1]) * x0 + LEVELS[i + 1] * noise(i + 1)
    np.testing.assert_allclose(few_step(student, LIKE, SCHEDULE, DRAWS).numpy(), x0, atol=1e-6)


def test_few_step_costs_one_forward_a_step_at_the_schedules_levels():
    student = Linear(0.3, 0.2, -0.1)
    few_step(student, LIKE, SCHEDULE, DRAWS)
    assert student.levels == [[pytest.approx(level)] * 3 for level in LEVELS]


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_euler_follows_the_guided_velocity(guidance_scale):
    with_words, without = Linear(0.3, 0.2, -0.1), Linear(-0.2, 0.1, 0.4)
    x = noise(0)
    for level, after in zip(LEVELS, [*LEVELS[1:], 0.0], strict=True):
        c, u = with_words.plain(x, level), without.plain(x, level)
        x = x + (after - level) * (u + guidance_scale * (c - u))
    made = euler(with_words, without, LIKE, SCHEDULE, guidance_scale, DRAWS)
    np.testing.assert_allclose(made.numpy(), x, atol=1e-6)
    assert len(with_words.levels) == len(without.levels) == 4


def test_euler_without_guidance_costs_one_forward_a_step():
    alone = Linear(0.3, 0.2, -0.1)
    made = euler(alone, None, LIKE, SCHEDULE, 7.0, DRAWS)
    both = euler(alone, alone, LIKE, SCHEDULE, 1.0, DRAWS)
    torch.testing.assert_close(made, both)
    assert len(alone.levels) == 4 + 2 * 4


def perfect(target: torch.Tensor):
    """The velocity of the straight line to one x0: eps - x0 = (x_sigma - x0) / sigma."""
    return lambda x_sigma, sigma: (x_sigma - target) / sigma.double().reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_a_perfect_velocity_arrives_at_its_x0(steps):
    target = StepRng(0).normal("target", LIKE)
    schedule = Schedule.shifted(steps, 3.0)
    torch.testing.assert_close(few_step(perfect(target), LIKE, schedule, DRAWS), target, atol=1e-6, rtol=0)
    torch.testing.assert_close(euler(perfect(target), None, LIKE, schedule, 1.0, DRAWS), target, atol=1e-6, rtol=0)


def test_samples_come_from_the_draws_and_like_gives_shape_and_type_alone():
    student = Linear(0.3, 0.2, -0.1)
    first = few_step(student, LIKE.clone().fill_(float("nan")), SCHEDULE, DRAWS)
    assert torch.equal(first, few_step(student, LIKE.clone().zero_(), SCHEDULE, DRAWS))
    assert not torch.equal(first, few_step(student, LIKE, SCHEDULE, StepRng(6).named("sample")))
    narrow = few_step(lambda x, sigma: 0.5 * x, torch.empty(2, 1, 2, 2, dtype=torch.bfloat16), SCHEDULE, DRAWS)
    assert narrow.dtype == torch.bfloat16

"""Flow algebra: each formula against plain float64 numbers, the schedules against the paper's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from clora.diffusion.flow import (
    Schedule,
    add_noise,
    guide,
    over,
    position,
    shift,
    to_noise,
    to_x0,
    unshift,
    velocity_target,
)

levels = st.floats(0.0, 1.0)
numbers = st.floats(-10.0, 10.0)
shifts = st.floats(0.1, 20.0)


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def sigmas(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(numbers, numbers, levels)
def test_noising_and_the_velocity_agree_with_plain_numbers(x0, noise, sigma):
    x_sigma = add_noise(rows(x0), rows(noise), sigmas(sigma)).item()
    assert x_sigma == pytest.approx((1.0 - sigma) * x0 + sigma * noise, abs=1e-12)
    assert velocity_target(rows(x0), rows(noise)).item() == pytest.approx(noise - x0, abs=1e-12)


@given(numbers, numbers, levels)
def test_the_velocity_leads_back_to_x0_and_to_the_noise(x0, noise, sigma):
    x_sigma = rows((1.0 - sigma) * x0 + sigma * noise)
    velocity = rows(noise - x0)
    assert to_x0(x_sigma, velocity, sigmas(sigma)).item() == pytest.approx(x0, abs=1e-12)
    assert to_noise(x_sigma, velocity, sigmas(sigma)).item() == pytest.approx(noise, abs=1e-12)


@given(numbers, numbers, levels)
def test_the_papers_notation_is_the_same_path_with_the_sign_turned(y, noise, sigma):
    """Paper Eq. 1: y_t = t y + (1 - t) eps and v = y - eps, with t = 1 - sigma."""
    t = 1.0 - sigma
    y_t, paper_velocity = t * y + (1.0 - t) * noise, y - noise
    assert add_noise(rows(y), rows(noise), sigmas(sigma)).item() == pytest.approx(y_t, abs=1e-12)
    assert velocity_target(rows(y), rows(noise)).item() == -paper_velocity
    assert to_x0(rows(y_t), rows(-paper_velocity), sigmas(sigma)).item() == pytest.approx(
        y_t + (1.0 - t) * paper_velocity, abs=1e-12
    )


def test_every_row_has_its_own_level():
    x0 = torch.arange(12.0, dtype=torch.float64).reshape(3, 2, 2)
    noise = -torch.ones_like(x0)
    level = sigmas(0.0, 0.25, 1.0)
    expected = np.stack([(1 - s) * x0[i].numpy() - s for i, s in enumerate([0.0, 0.25, 1.0])])
    np.testing.assert_allclose(add_noise(x0, noise, level).numpy(), expected)


def test_the_level_takes_the_type_and_the_axes_of_x():
    spread = over(torch.tensor([0.25, 0.5]), torch.zeros(2, 3, 4, 5, dtype=torch.bfloat16))
    assert spread.shape == (2, 1, 1, 1)
    assert spread.dtype == torch.bfloat16


def test_no_noise_and_pure_noise_are_exact():
    x0, noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.full((2, 3), 7.0)
    assert torch.equal(add_noise(x0, noise, torch.zeros(2)), x0)
    assert torch.equal(add_noise(x0, noise, torch.ones(2)), noise)


@given(levels, shifts)
def test_unshift_undoes_shift(u, s):
    assert unshift(shift(u, s), s) == pytest.approx(u, abs=1e-9)
    assert shift(unshift(u, s), s) == pytest.approx(u, abs=1e-9)


@given(levels)
def test_shift_moves_levels_towards_one_and_keeps_the_ends(u):
    assert shift(0.0, 3.0) == 0.0
    assert shift(1.0, 3.0) == 1.0
    assert shift(u, 1.0) == pytest.approx(u)
    assert shift(u, 3.0) >= u - 1e-12
    assert shift(u, 3.0) == pytest.approx(3.0 * u / (1.0 + 2.0 * u))


def test_shift_takes_tensors():
    u = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert shift(u, 3.0).tolist() == [0.0, 0.75, 1.0]
    assert unshift(torch.tensor([0.75], dtype=torch.float64), 3.0).tolist() == [0.5]


@pytest.mark.parametrize(("tau", "u"), [(0, 0.0), (500, 0.25), (750, 0.5), (900, 0.75), (1000, 1.0)])
def test_a_bound_in_thousandths_is_a_place_on_the_papers_schedule(tau, u):
    assert position(tau) == pytest.approx(u)


@pytest.mark.parametrize(
    ("steps", "golden"),
    [
        (8, [1000.0, 954.5, 900.0, 833.3, 750.0, 642.9, 500.0, 300.0]),
        (4, [1000.0, 900.0, 750.0, 500.0]),
        (1, [1000.0]),
    ],
)
def test_schedules_are_the_papers(steps, golden):
    schedule = Schedule.shifted(steps, 3.0)
    assert [round(1000 * sigma, 1) for sigma in schedule.sigmas] == golden
    assert len(schedule) == steps
    assert schedule.tensor().dtype == torch.float32
    np.testing.assert_allclose(schedule.tensor().numpy(), np.array(schedule.sigmas), rtol=1e-7)


def test_a_schedule_leads_from_level_to_level_and_ends_in_x0():
    schedule = Schedule.shifted(4, 3.0)
    assert [schedule.after(i) for i in range(4)] == [*schedule.sigmas[1:], 0.0]


@given(numbers, numbers)
def test_guidance_of_five_is_four_added_to_the_conditional(c, u):
    """The paper's u + 5 (c - u) and its public code's c + 4 (c - u) are one number."""
    guided = guide(rows(c), rows(u), 5.0).item()
    assert guided == pytest.approx(u + 5.0 * (c - u), abs=1e-10)
    assert guided == pytest.approx(c + 4.0 * (c - u), abs=1e-10)


def test_guidance_of_one_and_zero_are_the_two_predictions():
    c, u = rows(2.0, 3.0), rows(-1.0, 4.0)
    assert torch.equal(guide(c, u, 1.0), c)
    assert torch.equal(guide(c, u, 0.0), u)

"""TA-FM: the loss against float64, its gradient, and both ways to draw the level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clora_tafm import clora_losses
from clora_tafm.anchoring import TaFm
from clora_tafm.velocity import VelocityMatching

from clora.api import Forward, Row, StepRng
from clora.testing import drive, example_step

ROWS = [Row("effect", "ink"), Row("effect", "ink"), Row("effect", "wool")]


def a_step(seed: int = 3, rows: int = 3, **more):
    targets = torch.randn(rows, 2, 3, 3, generator=torch.Generator().manual_seed(seed))
    return example_step((ROWS * rows)[:rows], targets, rng=StepRng(seed), **more)


def test_tafm_registers_itself():
    registered = [(c.name, c.load()) for c in clora_losses()]
    assert registered == [("ta_fm", TaFm), ("velocity_matching", VelocityMatching)]


def test_tafm_loss_and_gradient_are_those_of_the_equation():
    step = a_step()
    weight = torch.tensor(0.7, requires_grad=True)
    asked: list[Forward] = []

    def velocity(forward: Forward) -> torch.Tensor:
        asked.append(forward)
        return weight * forward.x_sigma + forward.conditions.text[..., None]

    term = drive(TaFm()(step), velocity)
    term.loss.backward()

    (forward,) = asked
    assert forward.role == "student"
    assert forward.grad
    y, sigma = step.targets.double().numpy(), forward.sigma.double().numpy().reshape(-1, 1, 1, 1)
    eps = step.rng.normal("noise", step.targets).double().numpy()
    y_sigma = (1 - sigma) * y + sigma * eps
    np.testing.assert_allclose(forward.x_sigma.numpy(), y_sigma, atol=1e-6)
    words = np.array([1.0, 1.1, 1.2]).reshape(-1, 1, 1, 1)  # the student's, not the teacher's
    error = 0.7 * y_sigma + words - (eps - y)
    assert term.loss.item() == pytest.approx(np.mean(error**2), rel=1e-5)
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(np.mean(2 * error * y_sigma), rel=1e-4)


def test_tafm_is_zero_for_a_student_that_knows_the_velocity():
    step = a_step()
    eps = step.rng.normal("noise", step.targets)
    assert drive(TaFm()(step), lambda _: eps - step.targets).loss.item() == 0


def test_tafm_computes_in_float32_for_half_precision_latents():
    targets = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    term = drive(TaFm()(example_step(ROWS[:2], targets)), lambda f: f.x_sigma)
    assert term.loss.dtype == torch.float32


def shares_above(loss: TaFm, level: float) -> float:
    sigma = loss.sigmas(a_step(rows=40_000))
    assert sigma.min() >= 0
    assert sigma.max() <= 1
    return (sigma > level).float().mean().item()


def test_tafm_levels_follow_the_shifted_uniform():
    for level in (0.3, 0.75, 0.95):
        # P(shift(u) > l) = 1 - l / (s - (s - 1) l), independent of the code under test
        assert shares_above(TaFm(), level) == pytest.approx(1 - level / (3 - 2 * level), abs=0.01)


def test_tafm_above_dmd_draws_sixty_percent_near_pure_noise():
    rng = np.random.default_rng(0).random((2, 400_000))
    t = 3 * rng[0] / (1 + 2 * rng[0])
    u = t + (1 - t) * rng[1]
    by_hand = float((3 * u / (1 + 2 * u) > 0.95).mean())
    assert by_hand == pytest.approx(0.60, abs=0.01)
    assert shares_above(TaFm(sigma_sampling="above_dmd"), 0.95) == pytest.approx(by_hand, abs=0.01)


def test_tafm_a_fixed_t_dmd_bounds_the_level_from_below():
    sigma = TaFm(sigma_sampling="above_dmd", t_dmd=500).sigmas(a_step(rows=5000))
    assert sigma.min().item() == pytest.approx(0.75, abs=2e-3)
    assert sigma.min() >= 0.75 - 1e-6


def test_tafm_says_that_an_unread_t_dmd_has_no_effect():
    assert list(TaFm(sigma_sampling="above_dmd", t_dmd=500).check()) == []
    assert list(TaFm().check()) == []
    (found,) = TaFm(t_dmd=500).check()
    assert "above_dmd" in found


@pytest.mark.parametrize(
    "wrong", [{"t_dmd": 1000.0}, {"weight": -1.0}, {"streams": ()}, {"streams": ("x",)}, {"sigma_sampling": "x"}]
)
def test_tafm_bounds(wrong):
    with pytest.raises(ValueError, match=r"."):
        TaFm(**wrong)

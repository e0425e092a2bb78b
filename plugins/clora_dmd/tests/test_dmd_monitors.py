"""What a DMD step logs: every number against float64, by level, and what an over-saturated student looks like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clora_dmd.dmd import Dmd
from clora_dmd.monitors import BANDS, Judged, by_level, contrast, logs, spread

from clora.api import Row, Simulated, StepRng
from clora.testing import drive, example_step

SHAPE = (6, 2, 4, 4)
LEVELS = [0.05, 0.2, 0.4, 0.5, 0.95, 1.0]  # two of each third


def numbers(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) + 0.3


def by_hand(p: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and ratio of spreads row by row, by numpy's own covariance."""
    both = [np.cov(one.ravel(), other.ravel(), bias=True) for one, other in zip(p, r, strict=True)]
    return np.array([c[0, 1] / c[1, 1] for c in both]), np.array([np.sqrt(c[0, 0] / c[1, 1]) for c in both])


def test_contrast_and_spread_are_slope_and_ratio_of_standard_deviations():
    p, r = numbers(1), numbers(2)
    slope, ratio = by_hand(p.double().numpy(), r.double().numpy())
    np.testing.assert_allclose(contrast(p, r).numpy(), slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(spread(p, r).numpy(), ratio, rtol=1e-4)
    torch.testing.assert_close(contrast(1.3 * r - 0.5, r), torch.full((6,), 1.3))
    assert contrast(r, torch.ones(SHAPE)).isfinite().all()  # a picture of one colour has no contrast to compare


def test_every_log_is_the_mean_over_all_rows_and_over_those_of_a_third_of_the_levels():
    step = Judged(numbers(1), numbers(2), numbers(3), numbers(4), torch.tensor(LEVELS))
    made = logs(step, torch.tensor(3))
    x, g, f, r = (t.double().numpy() for t in (step.x, step.gradient, step.fake, step.real))
    f2, r2 = f.reshape(6, -1), r.reshape(6, -1)
    rows = {
        "gradient_norm": np.sqrt((g**2).mean((1, 2, 3))),
        "real_fake_cosine": (f2 * r2).sum(1) / np.linalg.norm(f2, axis=1) / np.linalg.norm(r2, axis=1),
        "contrast_student": by_hand(x, r)[0],
        "contrast_critic": by_hand(f, r)[0],
        "spread_student": by_hand(x, r)[1],
        "spread_critic": by_hand(f, r)[1],
    }
    for name, values in rows.items():
        assert made[name] == pytest.approx(values.mean(), rel=1e-4), name
        for band, part in zip(BANDS, np.split(values, 3), strict=True):
            assert made[f"{name}.{band}"] == pytest.approx(part.mean(), rel=1e-4), (name, band)
    assert made["not_finite"] == 3
    assert len(made) == 2 + 6 * 4 + 1


def test_a_third_without_rows_and_numbers_that_are_not_finite_are_left_out():
    step = Judged(numbers(1), numbers(2), numbers(3), numbers(4), torch.full((6,), 0.1))
    made = logs(step, torch.tensor(0))
    assert {name.partition(".")[2] for name in made} == {"", "low"}
    step.fake[0] = float("nan")
    made = logs(step, torch.tensor(32))
    assert "contrast_critic" not in made
    assert made["contrast_student"] == pytest.approx(float(contrast(step.x, step.real).mean()))
    assert all(np.isfinite(list(made.values())))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_loss_logs_by_the_place_on_the_schedule_whatever_the_shift(shift):
    rows = 3000
    step = example_step([Row("general")] * rows, torch.zeros(rows, 1, 2, 2), rng=StepRng(1), shift=shift)
    x0 = step.rng.normal("x0", step.targets)
    simulated = {"backward": Simulated(step.rows, x0, torch.ones(rows), x0)}
    loss = Dmd("backward", guidance_scale=1.0, tau_min=500)
    term = drive(loss(step), lambda f: (0.4 if f.role == "critic" else 0.5) * f.x_sigma, simulated)
    u = loss.sigmas(step)
    u = u / (shift - (shift - 1) * u)
    share = {band: float((u * 3).long().clamp(max=2).eq(i).float().mean()) for i, band in enumerate(BANDS)}
    assert share["low"] == pytest.approx((1 / 3 - 0.25) / 0.75, abs=0.02)  # tau 500 is the place 0.25
    mean = sum(share[band] * term.logs[f"gradient_norm.{band}"] for band in BANDS)
    assert mean == pytest.approx(term.logs["gradient_norm"], rel=1e-4)


def test_the_floor_relative_to_the_teachers_spread_bounds_the_gradient_near_the_target():
    r = numbers(5)
    x, fake = r + 1e-4, r + 1e-4 * numbers(6)
    plain, _ = Dmd("b", floor=1e-8).gradient(x, fake, r)
    held, _ = Dmd("b", floor=1e-8, floor_of_spread=0.1).gradient(x, fake, r)
    std = r.double().numpy().std(axis=(1, 2, 3), keepdims=True)
    expected = (fake.double() - r.double()).numpy() / (0.1 * std)
    np.testing.assert_allclose(held.numpy(), expected, rtol=2e-3, atol=1e-7)
    assert plain.abs().mean() > 100 * held.abs().mean()
    far, _ = Dmd("b", floor_of_spread=0.1).gradient(r + 5, fake, r)
    torch.testing.assert_close(far, Dmd("b").gradient(r + 5, fake, r)[0])  # far from it nothing changes


def test_the_critics_error_is_told_by_thirds_of_the_levels():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    told = by_level("error", values, torch.tensor([0.0, 0.3, 0.7, 0.99, 1.0]))
    assert told == pytest.approx({"error.low": 1.5, "error.high": 28 / 3})

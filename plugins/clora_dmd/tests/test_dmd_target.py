"""Target simulation: the noised target, the levels it may be noised to."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from clora_dmd.target import Target

from clora.api import Forward, Row, Schedule, StepRng
from clora.testing import drive, example_step

EIGHT, FOUR = Schedule.shifted(8, 3.0), Schedule.shifted(4, 3.0)


def test_target_is_the_students_x0_from_the_noised_target():
    targets = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    step = example_step([Row("effect", "ink")] * 4, targets, rng=StepRng(2))
    a = torch.tensor(0.4, requires_grad=True)
    asked: list[Forward] = []

    def velocity(forward: Forward) -> torch.Tensor:
        asked.append(forward)
        return a * forward.x_sigma + forward.conditions.text[..., None]

    simulated = drive(Target().simulate(step), velocity)
    (forward,) = asked
    assert forward.role == "student"
    assert forward.grad
    sigma = simulated.sigma.double().numpy().reshape(-1, 1, 1, 1)
    eps = step.rng.normal("noise", targets).double().numpy()
    y_sigma = (1 - sigma) * targets.double().numpy() + sigma * eps
    words = (1 + 0.1 * np.arange(4)).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(simulated.x_sigma.numpy(), y_sigma, atol=1e-6)
    np.testing.assert_allclose(simulated.x0.detach().numpy(), y_sigma - sigma * (0.4 * y_sigma + words), atol=1e-6)
    simulated.x0.sum().backward()
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(-(sigma * y_sigma).sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("target", "schedule", "levels"),
    [
        (Target(), EIGHT, [642.857, 500, 300]),  # 750 itself is out: strictly below
        (Target(), FOUR, [500]),
        (Target(tau_max=751), EIGHT, [750, 642.857, 500, 300]),
        (Target(tau_max=1000), EIGHT, [954.545, 900, 833.333, 750, 642.857, 500, 300]),
        (Target(last_steps=5), EIGHT, [833.333, 750, 642.857, 500, 300]),  # the public code
        (Target(last_steps=1), FOUR, [500]),
    ],
)
def test_target_levels(target, schedule, levels):
    assert [1000 * sigma for sigma in target.levels(schedule)] == pytest.approx(levels, abs=1e-2)
    assert list(target.check_schedule(schedule)) == []


def levels_of(words: str, steps: int, shift: float) -> str:
    """The cell of the README's table: thousandths, "all eight", or "refused"."""
    keys = dict(part.split(": ") for part in words.split(", "))
    last = keys.get("last_steps")
    target = Target(None if keys["tau_max"] == "null" else float(keys["tau_max"]), None if last is None else int(last))
    schedule = Schedule.shifted(steps, shift)
    if list(target.check_schedule(schedule)):
        return "refused"
    told = " ".join(f"{1000 * sigma:.0f}" for sigma in target.levels(schedule))
    return "all eight" if len(target.levels(schedule)) == 8 else told


def test_the_readme_tells_the_levels_at_eight_and_four_steps():
    lines = (Path(__file__).parents[1] / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `tau_max: ")]
    assert len(rows) == 5
    for words, *cells in rows:
        settings = [(steps, shift) for steps in (8, 4) for shift in (3.0, 1.0)]
        assert cells == [levels_of(words.strip("`"), *each) for each in settings], words


@pytest.mark.parametrize("shift", [3.0, 1.0])
def test_the_last_steps_are_drawn_from_without_a_bound(shift):
    rows = 400
    step = example_step([Row("effect", "ink")] * rows, torch.zeros(rows, 1, 1, 1), rng=StepRng(4), steps=4, shift=shift)
    sigma = drive(Target(tau_max=None, last_steps=3).simulate(step), lambda f: f.x_sigma).sigma
    assert sorted(set(sigma.tolist()), reverse=True) == pytest.approx(step.schedule.sigmas[-3:])


def test_target_bound_is_exact_for_computed_levels():
    # whatever rounding makes of a level, a bound typed as its value excludes it
    for steps in range(2, 30):
        schedule = Schedule.shifted(steps, 3.0)
        for i, sigma in enumerate(schedule.sigmas[:-1]):
            assert len(Target(tau_max=round(1000 * sigma, 9)).levels(schedule)) == steps - 1 - i


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0, 3.0, 7.0])
@pytest.mark.parametrize(("tau_max", "below"), [(750.0, 3), (900.0, 5), (954.545, 6), (500.0, 1), (1000.0, 7)])
def test_target_takes_the_same_steps_whatever_the_shift(shift, tau_max, below):
    schedule = Schedule.shifted(8, shift)
    assert Target(tau_max=tau_max).levels(schedule) == schedule.sigmas[-below:]


def test_target_says_what_a_bound_is_at_another_shift():
    (found,) = Target(tau_max=300).check_schedule(Schedule.shifted(4, 1.0))
    assert found == "tau_max 300 (125 at shift 1) leaves no level of the schedule below it: 1000, 750, 500, 250"


def test_target_draws_its_levels_uniformly():
    rows = 6000
    step = example_step([Row("effect", "ink")] * rows, torch.zeros(rows, 1, 1, 1), rng=StepRng(4))
    sigma = drive(Target().simulate(step), lambda f: f.x_sigma).sigma
    for level in (0.642857, 0.5, 0.3):
        share = (sigma - level).abs().lt(1e-4).float().mean().item()
        assert abs(share - 1 / 3) < 4 * sqrt(2 / 9 / rows)


def test_target_says_which_levels_there_are_when_none_is_left():
    (found,) = Target(tau_max=300).check_schedule(EIGHT)
    assert found == (
        "tau_max 300 leaves no level of the schedule below it: 1000, 954.5, 900, 833.3, 750, 642.9, 500, 300"
    )
    (found,) = Target(last_steps=5).check_schedule(FOUR)
    assert found == "last_steps 5 asks for more than the schedule's 4 levels: 1000, 900, 750, 500"


def test_target_records_no_gradient_in_the_critics_phase():
    step = example_step([Row("effect", "ink")], torch.zeros(1, 1, 1, 1), phase="critic")
    a = torch.tensor(1.0, requires_grad=True)
    assert not drive(Target().simulate(step), lambda f: a * f.x_sigma).x0.requires_grad


@pytest.mark.parametrize("wrong", [{"tau_max": 0}, {"tau_max": 1001}, {"last_steps": 0}])
def test_target_bounds(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Target(**wrong)

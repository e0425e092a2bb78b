"""Velocity matching: the loss and its gradient against float64, who is asked what, and its bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve
from clora_tafm.velocity import VelocityMatching

from clora.api import Forward, Row, StepContext, StepRng
from clora.testing import drive, example_step

ROWS = [Row("general", None), Row("general", None), Row("general", None)]


def a_step(rows: list[Row] = ROWS, **more) -> StepContext:
    generator = torch.Generator().manual_seed(5)
    step = example_step(rows, torch.zeros(len(rows), 2, 3, 3), rng=StepRng(3), **more)
    source = torch.randn(len(rows), 2, 3, 3, generator=generator)
    teacher = evolve(step.conditions.teacher, source=source)
    return evolve(step, conditions=evolve(step.conditions, teacher=teacher))


def test_the_loss_and_its_gradient_are_those_of_the_equation():
    step = a_step()
    weight = torch.tensor(0.7, requires_grad=True)
    asked: list[Forward] = []

    def velocity(forward: Forward) -> torch.Tensor:
        asked.append(forward)
        if forward.role == "student":
            return weight * forward.x_sigma
        return 0.5 * forward.x_sigma.square() + forward.sigma.reshape(-1, 1, 1, 1)

    term = drive(VelocityMatching()(step), velocity)
    term.loss.backward()

    assert [(f.role, f.grad, f.adapters[0]) for f in asked] == [
        ("teacher", False, None),
        ("student", True, "student"),
        ("teacher", False, None),
    ]
    source = step.conditions.teacher.source.double().numpy()
    s, sigma = (f.sigma.double().numpy().reshape(-1, 1, 1, 1) for f in asked[:2])
    first, noise = (
        step.rng.normal(name, step.conditions.teacher.source).double().numpy() for name in ("first noise", "noise")
    )
    z = (1 - s) * source + s * first
    x = z - s * (0.5 * z**2 + s)
    x_sigma = (1 - sigma) * x + sigma * noise
    error = 0.7 * x_sigma - (0.5 * x_sigma**2 + sigma)
    assert not np.allclose(s, sigma)
    assert term.loss.item() == pytest.approx(np.mean(error**2), rel=1e-5)
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(np.mean(2 * error * x_sigma), rel=1e-4)


def test_it_is_zero_for_a_student_that_answers_as_its_teacher():
    assert drive(VelocityMatching()(a_step()), lambda f: f.x_sigma * 0.3 + 1).loss.item() == 0


def test_an_effects_rows_follow_their_own_teacher():
    rows = [Row("effect", "ink"), Row("effect", "wool")]
    asked: list[Forward] = []
    drive(VelocityMatching(streams=("effect",))(a_step(rows)), lambda f: asked.append(f) or f.x_sigma)
    assert [f.adapters for f in asked] == [("ink", "wool"), ("student", "student"), ("ink", "wool")]


def test_both_levels_follow_the_shifted_uniform():
    asked: list[Forward] = []
    drive(VelocityMatching()(a_step(ROWS * 4000)), lambda f: asked.append(f) or f.x_sigma)
    for forward in asked[:2]:
        # P(shift_3(u) > .75) = .5
        assert (forward.sigma > 0.75).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert asked[1].sigma.equal(asked[2].sigma)


def test_its_weight_follows_the_run():
    loss = VelocityMatching(weight=2.0, fade_in=0.5, fade_out=0.25)
    assert [loss.weight_at(p) for p in (0.0, 0.25, 0.5, 0.875)] == [0.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"streams": ()}, {"streams": ("x",)}, {"fade_in": 1.5}])
def test_its_keys_have_bounds(wrong):
    with pytest.raises(ValueError, match=r"."):
        VelocityMatching(**wrong)

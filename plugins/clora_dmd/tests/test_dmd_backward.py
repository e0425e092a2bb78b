"""Backward simulation: the sampler's recursion, early stopping, the shared trajectory, the drawn steps."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from attrs import evolve
from clora_dmd import clora_simulations
from clora_dmd.backward import Backward
from clora_dmd.target import Target

from clora.api import ChecksSchedule, Forward, Row, SharesTrajectory, StepContext, StepRng
from clora.testing import drive, example_step

#: seed 5 draws all kinds of stops for six rows of an eight-step schedule
SEED, ROWS = 5, 6


def a_step(rows: int = ROWS, seed: int = SEED, **more) -> StepContext:
    route = [Row("general")] + [Row("effect", "ink")] * (rows - 1)
    return example_step(route, torch.zeros(rows, 2, 3, 3), rng=StepRng(seed), **more)


class Recorder:
    """A linear student v = a x + b sigma + words that remembers what it was asked."""

    def __init__(self, a: float = 0.3, b: float = 0.2) -> None:
        self.a = torch.tensor(a, requires_grad=True)
        self.b = b
        self.asked: list[Forward] = []

    def __call__(self, forward: Forward) -> torch.Tensor:
        self.asked.append(forward)
        return (
            self.a * forward.x_sigma + self.b * forward.sigma.reshape(-1, 1, 1, 1) + forward.conditions.text[..., None]
        )


def by_hand(step: StepContext, a: float = 0.3, b: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """All states and predictions of the sampler in float64, [steps, R, C, H, W]."""
    levels = [3 * (1 - i / 8) / (1 + 2 * (1 - i / 8)) for i in range(8)]
    words = (1 + 0.1 * np.arange(len(step.rows))).reshape(-1, 1, 1, 1)
    noise = [step.rng.normal(f"noise/{i}", step.targets).double().numpy() for i in range(8)]
    x, states, predictions = noise[0], [], []
    for i, sigma in enumerate(levels):
        states.append(x)
        predictions.append(x - sigma * (a * x + b * sigma + words))
        if i < 7:
            x = (1 - levels[i + 1]) * predictions[-1] + levels[i + 1] * noise[i + 1]
    return np.stack(states), np.stack(predictions)


def stops(step: StepContext) -> torch.Tensor:
    return step.rng.integers("stop", len(step.rows), 8)


def test_dmd_registers_its_simulations():
    assert [(c.name, c.load()) for c in clora_simulations()] == [("backward", Backward), ("target", Target)]
    assert isinstance(Backward(), SharesTrajectory)
    assert not isinstance(Target(), SharesTrajectory)
    assert isinstance(Target(), ChecksSchedule)
    assert not isinstance(Backward(), ChecksSchedule)  # every schedule can be walked


def test_backward_arrives_where_the_sampler_would():
    step, student = a_step(), Recorder()
    simulated = drive(Backward().simulate(step), student)
    states, predictions = by_hand(step)
    stop = stops(step).numpy()
    assert len(set(stop)) > 3  # the case is worth testing
    assert simulated.rows == step.rows
    np.testing.assert_allclose(simulated.x_sigma.numpy(), states[stop, range(ROWS)], atol=1e-5)
    np.testing.assert_allclose(simulated.x0.detach().numpy(), predictions[stop, range(ROWS)], atol=1e-5)
    np.testing.assert_allclose(simulated.sigma.numpy(), np.array(step.schedule.sigmas)[stop], rtol=1e-6)


def test_backward_gradient_passes_through_the_last_forward_alone():
    step, student = a_step(), Recorder()
    simulated = drive(Backward().simulate(step), student)
    assert [forward.grad for forward in student.asked] == [False] * (len(student.asked) - 1) + [True]
    assert not simulated.x_sigma.requires_grad
    simulated.x0.sum().backward()
    # d x0 / d a = -sigma x_sigma, nothing from the steps before
    expected = -(simulated.sigma.reshape(-1, 1, 1, 1) * simulated.x_sigma).sum()
    assert student.a.grad is not None
    torch.testing.assert_close(student.a.grad, expected)


def test_backward_runs_only_rows_that_have_not_stopped():
    step, student = a_step(), Recorder()
    drive(Backward().simulate(step), student)
    stop = stops(step)
    sizes = [forward.x_sigma.shape[0] for forward in student.asked]
    assert sizes[:-1] == [int((stop > i).sum()) for i in range(int(stop.max()))]
    assert sizes[-1] == ROWS
    for i, forward in enumerate(student.asked[:-1]):
        here = (stop > i).nonzero()[:, 0]
        assert forward.adapters == ("student",) * len(here)
        torch.testing.assert_close(forward.conditions.text[:, 0, 0], 1 + 0.1 * here)
        assert forward.sigma.tolist() == pytest.approx([step.schedule.sigmas[i]] * len(here))


def test_backward_always_all_gives_identical_numbers_for_more_forwards():
    few, many = Recorder(), Recorder()
    drawn = drive(Backward().simulate(a_step()), few)
    everything = drive(Backward(stop="always_all").simulate(a_step()), many)
    assert torch.equal(drawn.x_sigma, everything.x_sigma)
    assert torch.equal(drawn.x0, everything.x0)
    assert torch.equal(drawn.sigma, everything.sigma)
    assert [forward.x_sigma.shape[0] for forward in many.asked] == [ROWS] * 8
    assert sum(forward.x_sigma.shape[0] for forward in few.asked) < 8 * ROWS


def test_backward_rollout_is_the_whole_trajectory():
    step, student = a_step(), Recorder()
    trajectory = drive(Backward().rollout(step), student)
    states, predictions = by_hand(step)
    np.testing.assert_allclose(trajectory.x_sigma.numpy(), states, atol=1e-5)
    np.testing.assert_allclose(trajectory.x0.numpy(), predictions, atol=1e-5)
    assert not any(forward.grad for forward in student.asked)
    assert len(student.asked) == 8


def test_backward_with_a_trajectory_gives_what_it_gives_without():
    step = a_step()
    shared = evolve(step, trajectory=drive(Backward().rollout(step), Recorder()))
    student = Recorder()
    alone, picked = drive(Backward().simulate(step), Recorder()), drive(Backward().simulate(shared), student)
    assert torch.equal(alone.x_sigma, picked.x_sigma)
    assert torch.equal(alone.x0, picked.x0)
    assert [forward.grad for forward in student.asked] == [True]


def test_backward_asks_nothing_in_the_critics_phase_with_a_trajectory():
    step = a_step(phase="critic")
    shared = evolve(step, trajectory=drive(Backward().rollout(step), Recorder()))
    student = Recorder()
    picked = drive(Backward().simulate(shared), student)
    assert student.asked == []
    alone = drive(Backward().simulate(step), student)
    assert not any(forward.grad for forward in student.asked)
    assert torch.equal(picked.x0, alone.x0)
    assert torch.equal(picked.x_sigma, alone.x_sigma)
    assert torch.equal(picked.sigma, alone.sigma)


def test_backward_stops_are_uniform_over_the_schedule():
    rows, student = 8000, Recorder()
    step = example_step([Row("general")] * rows, torch.zeros(rows, 1, 1, 1), rng=StepRng(1))
    simulated = drive(Backward().simulate(step), student)
    for level in step.schedule.sigmas:
        share = (simulated.sigma - level).abs().lt(1e-6).float().mean().item()
        assert abs(share - 1 / 8) < 4 * sqrt(1 / 8 * 7 / 8 / rows)
    mean_forwards = sum(forward.x_sigma.shape[0] for forward in student.asked[:-1]) / rows
    assert mean_forwards == pytest.approx(3.5, abs=4 * sqrt(63 / 12 / rows))


def test_backward_keeps_the_latents_type():
    step = example_step([Row("general")] * 3, torch.zeros(3, 1, 2, 2, dtype=torch.bfloat16))
    assert drive(Backward().simulate(step), lambda f: 0.5 * f.x_sigma).x0.dtype == torch.bfloat16


def test_backward_stop_is_one_of_two():
    with pytest.raises(ValueError, match="stop"):
        Backward(stop="never")  # type: ignore[arg-type]

"""The DMD loss and the critic's: every number against float64, gradients, bounds, what is asked of whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve
from clora_dmd import clora_losses
from clora_dmd.critic import CriticFlowMatching
from clora_dmd.dmd import Dmd
from clora_dmd.gan import Gan

from clora.api import CriticLoss, Forward, LossTerm, Row, Simulated, StepContext, StepRng, StudentLoss, UsesSimulation
from clora.testing import drive, example_step

ROWS = [Row("general"), Row("effect", "ink"), Row("effect", "wool")]
SHAPE = (3, 2, 4, 4)
#: v = a x + words for each role; the words are 1, 2 and 0 (+ a tenth of the row) as example_scene gives them
SLOPE = {"critic": 0.2, "teacher": 0.5, "teacher_unconditional": 0.4}


def a_step(**more) -> StepContext:
    return example_step(ROWS, torch.zeros(SHAPE), rng=StepRng(9), **more)


def an_x0(step: StepContext, scale: float = 1.0) -> torch.Tensor:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * scale
    return x[: len(step.rows)].requires_grad_()


def simulated_with(x0: torch.Tensor, rows: tuple[int, ...] = (0, 1, 2)) -> dict[str, Simulated]:
    return {"backward": Simulated(rows, torch.zeros_like(x0), torch.ones(len(rows)), x0)}


class Roles:
    """Linear critic and teachers with a weight each that must never get a gradient."""

    def __init__(self) -> None:
        self.weights = {role: torch.tensor(slope, requires_grad=True) for role, slope in SLOPE.items()}
        self.asked: list[Forward] = []

    def __call__(self, forward: Forward) -> torch.Tensor:
        self.asked.append(forward)
        return self.weights[forward.role] * forward.x_sigma + forward.conditions.text[..., None]

    def sigma(self) -> np.ndarray:
        return self.asked[0].sigma.double().numpy().reshape(-1, 1, 1, 1)


def by_hand(
    loss: Dmd, step: StepContext, x: np.ndarray, sigma: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f, r and g in float64 from the equations alone."""
    eps = step.rng.normal("noise", torch.zeros(x.shape)).double().numpy()
    row = 0.1 * np.arange(len(x)).reshape(-1, 1, 1, 1)
    x_sigma = (1 - sigma) * x + sigma * eps
    f = x_sigma - sigma * (0.2 * x_sigma + 1 + row)
    c = x_sigma - sigma * (0.5 * x_sigma + 2 + row)
    u = x_sigma - sigma * (0.4 * x_sigma + row)
    r = u + loss.guidance_scale * (c - u)
    denominator = np.abs(x - r).mean(axis=(1, 2, 3), keepdims=True) if loss.normalise else 1.0
    return f, r, (f - r) / denominator


def run(loss: Dmd, step: StepContext, x0: torch.Tensor) -> tuple[LossTerm, Roles]:
    roles = Roles()
    return drive(loss(step), roles, simulated_with(x0)), roles


def test_dmd_registers_its_losses():
    losses = {component.name: component.load() for component in clora_losses()}
    assert losses == {"dmd": Dmd, "gan": Gan, "critic_flow_matching": CriticFlowMatching}
    for loss, base in ((Dmd("backward"), StudentLoss), (CriticFlowMatching("backward"), CriticLoss)):
        assert isinstance(loss, UsesSimulation)
        assert isinstance(loss, base)
        assert loss.streams == ("general", "effect")
    assert Dmd("backward").needs_critic()


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0, 0.0])
@pytest.mark.parametrize("normalise", [True, False])
def test_dmd_loss_gradient_and_logs_are_those_of_the_equations(guidance_scale, normalise):
    loss, step = Dmd("backward", guidance_scale=guidance_scale, normalise=normalise), a_step()
    x0 = an_x0(step)
    term, roles = run(loss, step, x0)
    term.loss.backward()
    f, r, g = by_hand(loss, step, x0.detach().double().numpy(), roles.sigma())

    assert term.loss.item() == pytest.approx(0.5 * np.mean(g**2), rel=1e-4)
    assert x0.grad is not None
    np.testing.assert_allclose(x0.grad.numpy(), g / g.size, rtol=1e-3, atol=1e-7)
    assert all(weight.grad is None for weight in roles.weights.values())  # nothing through f, c or u

    f2, r2 = f.reshape(3, -1), r.reshape(3, -1)
    norms = np.linalg.norm(f2, axis=1), np.linalg.norm(r2, axis=1)
    logs = term.logs
    assert logs["gradient_norm"] == pytest.approx(np.sqrt((g**2).mean(axis=(1, 2, 3))).mean(), rel=1e-4)
    assert logs["real_fake_gap"] == pytest.approx(np.abs(f - r).mean(), rel=1e-4)
    assert logs["real_fake_distance"] == pytest.approx((np.linalg.norm(f2 - r2, axis=1) / norms[1]).mean(), rel=1e-4)
    assert logs["real_fake_cosine"] == pytest.approx(((f2 * r2).sum(1) / norms[0] / norms[1]).mean(), abs=1e-5)
    assert logs["not_finite"] == 0


def test_dmd_takes_the_backbones_own_guidance_of_velocities_where_asked():
    step = evolve(a_step(), guide=lambda c, u, w: w * c * c - u)
    x0 = an_x0(step)
    term, roles = run(Dmd("backward", guidance="own", guidance_scale=3.0, normalise=False), step, x0)
    term.loss.backward()
    x, sigma = x0.detach().double().numpy(), roles.sigma()
    row = 0.1 * np.arange(len(x)).reshape(-1, 1, 1, 1)
    x_sigma = (1 - sigma) * x + sigma * step.rng.normal("noise", x0).double().numpy()
    c, u = 0.5 * x_sigma + 2 + row, 0.4 * x_sigma + row
    g = (x_sigma - sigma * (0.2 * x_sigma + 1 + row)) - (x_sigma - sigma * (3 * c * c - u))
    assert x0.grad is not None
    np.testing.assert_allclose(x0.grad.numpy(), g / g.size, rtol=1e-3, atol=1e-6)


def test_dmd_asks_all_scores_at_once_each_under_its_own_words_and_adapter():
    _, roles = run(Dmd("backward"), a_step(), an_x0(a_step()))
    assert [forward.role for forward in roles.asked] == ["critic", "teacher", "teacher_unconditional"]
    assert not any(forward.grad for forward in roles.asked)
    critic, teacher, empty = roles.asked
    assert critic.adapters == ("critic",) * 3
    assert teacher.adapters == empty.adapters == (None, "ink", "wool")  # the general stream's teacher is the base
    assert [float(forward.conditions.text[0]) for forward in roles.asked] == [1, 2, 0]
    for forward in (teacher, empty):
        assert torch.equal(forward.x_sigma, critic.x_sigma)
        assert torch.equal(forward.sigma, critic.sigma)
    question = Dmd("backward")(a_step())
    next(question)
    asked = question.send(simulated_with(an_x0(a_step()))["backward"])
    assert isinstance(asked, tuple)
    assert len(asked) == 3


def test_dmd_without_guidance_asks_no_unconditional_teacher():
    _, roles = run(Dmd("backward", guidance_scale=1.0), a_step(), an_x0(a_step()))
    assert [forward.role for forward in roles.asked] == ["critic", "teacher"]


def test_dmd_reads_its_own_rows_of_a_wider_simulation():
    whole = a_step()
    step = whole.select(("effect",))
    x0 = an_x0(whole)
    term, roles = run(Dmd("backward", streams=("effect",)), step, x0)
    term.loss.backward()
    assert roles.asked[1].adapters == ("ink", "wool")
    assert x0.grad is not None
    assert torch.equal(x0.grad[0], torch.zeros_like(x0.grad[0]))
    assert x0.grad[1:].abs().min() > 0


def test_dmd_noise_is_standard_normal_around_x0():
    step = example_step([Row("general")] * 500, torch.zeros(500, 2, 4, 4), rng=StepRng(0))
    x0 = torch.full((500, 2, 4, 4), 3.0)
    asked: list[Forward] = []
    drive(Dmd("s")(step), lambda f: asked.append(f) or f.x_sigma, {"s": Simulated(step.rows, x0, torch.ones(500), x0)})
    sigma = asked[0].sigma.reshape(-1, 1, 1, 1)
    eps = (asked[0].x_sigma - (1 - sigma) * x0) / sigma
    assert abs(eps.mean().item()) < 4 / np.sqrt(eps.numel())
    assert eps.var().item() == pytest.approx(1, abs=0.05)


def levels(loss: Dmd, shift: float = 3.0) -> np.ndarray:
    step = example_step([Row("general")] * 50_000, torch.zeros(50_000, 1, 1, 1), rng=StepRng(0), shift=shift)
    return loss.sigmas(step).double().numpy()


@pytest.mark.parametrize("tau_min", [0.0, 500.0, 900.0])
@pytest.mark.parametrize("bound", ["post_shift", "pre_shift"])
def test_dmd_level_is_bounded_and_distributed_as_the_bound_says(tau_min, bound):
    sigma = levels(Dmd("backward", tau_min=tau_min, bound=bound))
    tau = tau_min / 1000
    least_u = tau / (3 - 2 * tau) if bound == "post_shift" else tau
    least = tau if bound == "post_shift" else 3 * tau / (1 + 2 * tau)
    assert sigma.min() >= least - 1e-6
    assert sigma.min() == pytest.approx(least, abs=2e-3)
    assert sigma.max() <= 1
    u = sigma / (3 - 2 * sigma)  # uniform again once the shift is undone
    for q in (0.1, 0.5, 0.9):
        assert np.quantile(u, q) == pytest.approx(least_u + q * (1 - least_u), abs=0.01)


@pytest.mark.parametrize(("shift", "least"), [(1.0, 0.25), (0.5, 1 / 7), (3.0, 0.5), (6.0, 2 / 3)])
def test_dmd_bound_is_a_level_of_the_papers_schedule_and_moves_with_the_shift(shift, least):
    sigma = levels(Dmd("backward", tau_min=500), shift)  # u = 0.25: shift_s(0.25) = s / (3 + s)
    assert least == pytest.approx(shift / (3 + shift))
    assert sigma.min() == pytest.approx(least, abs=1e-3)
    u = sigma / (shift - (shift - 1) * sigma)
    assert np.quantile(u, 0.5) == pytest.approx(0.625, abs=0.01)
    before = levels(Dmd("backward", tau_min=500, bound="pre_shift"), shift).min()
    assert before == pytest.approx(0.5 * shift / (1 + 0.5 * (shift - 1)), abs=1e-3)


def test_dmd_pre_shift_500_means_750():
    assert levels(Dmd("backward", tau_min=500, bound="pre_shift")).min() == pytest.approx(0.75, abs=1e-3)
    assert levels(Dmd("backward", tau_min=500)).min() == pytest.approx(0.5, abs=1e-3)


def test_dmd_floor_bounds_the_gradient_where_teacher_and_student_agree():
    loss = Dmd("backward", floor=1e-3)
    x = torch.zeros(1, 1, 2, 2)
    g, broken = loss.gradient(x, torch.full_like(x, 1e-6), x)
    torch.testing.assert_close(g, torch.full_like(x, 1e-3))
    assert broken == 0


def test_dmd_numbers_that_are_not_finite_become_zero_and_are_counted():
    loss = Dmd("backward")
    x = torch.zeros(2, 1, 2, 2)
    fake = torch.ones_like(x)
    fake[0, 0, 0, 0], fake[0, 0, 0, 1] = float("nan"), float("inf")
    g, broken = loss.gradient(x, fake, torch.full_like(x, 0.5))
    assert broken == 2
    torch.testing.assert_close(g, torch.tensor([[[[0.0, 0], [1, 1]]], [[[1, 1], [1, 1]]]]))

    step, x0 = a_step(), an_x0(a_step())

    def velocity(forward: Forward) -> torch.Tensor:
        out = 0.5 * forward.x_sigma
        if forward.role == "critic":
            out = out.clone()
            out[2] = float("nan")
        return out

    term = drive(loss(step), velocity, simulated_with(x0))
    term.loss.backward()
    assert term.logs["not_finite"] == 32
    assert torch.isfinite(term.loss)
    assert x0.grad is not None
    assert torch.equal(x0.grad[2], torch.zeros_like(x0.grad[2]))


def test_dmd_is_zero_where_critic_and_teacher_agree():
    x0 = an_x0(a_step())
    term = drive(Dmd("backward")(a_step()), lambda f: 0.1 * f.x_sigma, simulated_with(x0))
    term.loss.backward()
    assert term.loss.item() == 0
    assert term.logs["gradient_norm"] == term.logs["real_fake_distance"] == 0
    assert term.logs["real_fake_cosine"] == pytest.approx(1)
    assert x0.grad is not None
    assert not x0.grad.any()


def test_dmd_gradient_is_exact_however_large_x_is():
    # x - (x - g) in float32 would lose g's last digits beside a large x
    x0 = an_x0(a_step(), scale=1e4)
    term, _ = run(Dmd("backward", guidance_scale=1.0), a_step(), x0)
    term.loss.backward()
    assert x0.grad is not None
    g = (x0.grad * x0.numel()).double()
    assert term.loss.item() == pytest.approx(0.5 * g.square().mean().item(), rel=1e-6)


def test_dmd_computes_in_float32_for_half_precision_latents():
    step = example_step(ROWS, torch.zeros(SHAPE, dtype=torch.bfloat16), rng=StepRng(9))
    x0 = an_x0(step).detach().bfloat16().requires_grad_()
    term = drive(Dmd("backward")(step), lambda f: SLOPE[f.role] * f.x_sigma, simulated_with(x0))
    term.loss.backward()
    assert term.loss.dtype == torch.float32
    assert x0.grad is not None
    assert x0.grad.abs().max() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"tau_min": 1000.0},
        {"tau_min": -1.0},
        {"bound": "shift"},
        {"floor": 0.0},
        {"weight": -1.0},
        {"guidance_scale": -1.0},
        {"streams": ()},
        {"streams": ("effects",)},
    ],
)
def test_dmd_bounds(wrong):
    with pytest.raises(ValueError, match=r"must|Length"):
        Dmd("backward", **wrong)


def test_critic_loss_and_gradient_are_those_of_the_equation():
    step, roles = a_step(phase="critic"), Roles()
    x0 = an_x0(step)
    term = drive(CriticFlowMatching("backward")(step), roles, simulated_with(x0))
    term.loss.backward()
    (forward,) = roles.asked
    assert forward.role == "critic"
    assert forward.grad
    assert forward.adapters == ("critic",) * 3
    x, sigma = x0.detach().double().numpy(), roles.sigma()
    eps = step.rng.normal("noise", x0).double().numpy()
    x_sigma = (1 - sigma) * x + sigma * eps
    error = 0.2 * x_sigma + 1 + 0.1 * np.arange(3).reshape(-1, 1, 1, 1) - (eps - x)
    assert term.loss.item() == pytest.approx(np.mean(error**2), rel=1e-5)
    weight = roles.weights["critic"].grad
    assert weight is not None
    assert weight.item() == pytest.approx(np.mean(2 * error * x_sigma), rel=1e-4)
    assert x0.grad is None  # the student learns nothing here


@pytest.mark.slow
def test_critic_level_is_the_shifted_uniform():
    rows = 40_000
    step = example_step([Row("general")] * rows, torch.zeros(rows, 1, 1, 1), phase="critic")
    asked: list[Forward] = []
    x = torch.zeros(rows, 1, 1, 1)
    drive(
        CriticFlowMatching("s")(step),
        lambda f: asked.append(f) or f.x_sigma,
        {"s": Simulated(step.rows, x, torch.ones(rows), x)},
    )
    u = asked[0].sigma.double() / (3 - 2 * asked[0].sigma.double())
    for q in (0.1, 0.5, 0.9):
        assert u.quantile(q).item() == pytest.approx(q, abs=0.01)

"""The GAN loss: both objectives against float64, who gets which gradient, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve
from clora_dmd.gan import Gan

from clora.api import Forward, Inside, LossTerm, Row, Simulated, StepContext, StepRng
from clora.testing import drive, example_step
from clora.testing.conformance import problems_of

ROWS = [Row("effect", "ink"), Row("effect", "wool"), Row("effect", "ink")]
SHAPE = (3, 2, 4, 4)


class Linear(torch.nn.Module):
    """The logit of a row: a x_sigma + b sigma + c, summed over the row."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor([0.3, -0.7, 0.2]))

    def forward(self, x_sigma: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        a, b, c = self.weights
        return a * x_sigma.sum((1, 2, 3)) + b * sigma + c


def a_step(judge: torch.nn.Module, phase: str = "student") -> StepContext:
    targets = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    step = example_step(ROWS, targets, rng=StepRng(9), phase=phase)  # pyright: ignore[reportArgumentType]
    return evolve(step, modules={"discriminator": judge})


def computed(step: StepContext, x0: torch.Tensor) -> LossTerm:
    outcome = Simulated((0, 1, 2), torch.zeros_like(x0), torch.ones(3), x0)
    return drive(Gan("backward")(step), lambda forward: pytest.fail("it asks for no forward"), {"backward": outcome})


def test_both_objectives_are_those_of_the_equations_in_float64():
    judge, x0 = Linear(), torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    step = a_step(judge)
    term = computed(step, x0)
    u = step.rng.uniform("sigma", 3).double().numpy()
    sigma = step.shift * u / (1 + (step.shift - 1) * u)
    noise = step.rng.normal("noise", step.targets).double().numpy()
    a, b, c = judge.weights.detach().double().numpy()

    def logit(x: torch.Tensor) -> np.ndarray:
        level = sigma.reshape(-1, 1, 1, 1)
        return a * ((1 - level) * x.detach().double().numpy() + level * noise).sum((1, 2, 3)) + b * sigma + c

    fake, real = logit(x0), logit(step.targets)
    assert float(term.loss.detach()) == pytest.approx(np.log1p(np.exp(-fake)).mean(), rel=1e-5)
    own = np.log1p(np.exp(fake)).mean() + np.log1p(np.exp(-real)).mean()
    assert term.own is not None
    assert float(term.own.detach()) == pytest.approx(own, rel=1e-5)
    assert term.logs["discriminator"] == pytest.approx(own, rel=1e-5)
    assert term.logs["right"] == pytest.approx(0.5 * ((fake < 0).mean() + (real > 0).mean()))


def test_the_students_gradient_passes_through_the_discriminator_and_its_own_stays_with_it():
    judge, x0 = Linear(), torch.zeros(SHAPE).requires_grad_()
    term = computed(a_step(judge), x0)
    assert term.own is not None
    own, leaked = torch.autograd.grad(term.own, [judge.weights, x0], allow_unused=True)
    assert own.abs().sum() > 0
    assert leaked is None
    (gradient,) = torch.autograd.grad(term.loss, [x0])
    assert (gradient * judge.weights[0].detach()).sum() < 0  # towards a higher logit


@pytest.mark.parametrize("sees", ["latents", "critic", "teacher"])
def test_it_conforms(sees):
    assert problems_of("losses", Gan("backward", sees=sees)) == []


class OnTokens(torch.nn.Module):
    """The logit of a row: a sum of its features + b sigma."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor([0.3, -0.7]))

    def forward(self, features: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.weights[0] * features.sum((1, 2)) + self.weights[1] * sigma


@pytest.mark.parametrize("sees", ["critic", "teacher"])
def test_features_of_a_role_are_judged_as_the_equations_say_and_only_the_student_learns_through_it(sees):
    judge, x0 = OnTokens(), torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    slope, asked = torch.tensor(0.4, requires_grad=True), []

    def role(forward: Forward) -> Inside:
        asked.append(forward)
        velocity = (slope.detach() if forward.through else slope) * forward.x_sigma
        return Inside(velocity, (velocity.square().flatten(2).transpose(1, 2),))

    step = a_step(judge)
    outcome = Simulated((0, 1, 2), torch.zeros_like(x0), torch.ones(3), x0)
    term = drive(Gan("backward", sees=sees, depth=0.25)(step), role, {"backward": outcome})
    u = step.rng.uniform("sigma", 3).double().numpy()
    sigma = step.shift * u / (1 + (step.shift - 1) * u)
    noise = step.rng.normal("noise", step.targets).double().numpy()
    level, (a, b) = sigma.reshape(-1, 1, 1, 1), judge.weights.detach().double().numpy()
    states = [(1 - level) * x.detach().double().numpy() + level * noise for x in (x0, step.targets)]
    fake, real = (a * (0.4 * x).__pow__(2).sum((1, 2, 3)) + b * sigma for x in states)
    assert float(term.loss.detach()) == pytest.approx(np.log1p(np.exp(-fake)).mean(), rel=1e-5)
    own = np.log1p(np.exp(fake)).mean() + np.log1p(np.exp(-real)).mean()
    assert term.own is not None
    assert float(term.own.detach()) == pytest.approx(own, rel=1e-5)

    assert [(each.role, each.through, each.grad, each.depths) for each in asked] == [
        (sees, True, False, (0.25,)),
        (sees, False, False, (0.25,)),
    ]
    gradient, frozen = torch.autograd.grad(term.loss, [x0, slope], retain_graph=True, allow_unused=True)
    expected = -1 / (1 + np.exp(fake.reshape(-1, 1, 1, 1))) / 3 * a * 2 * 0.16 * states[0] * (1 - level)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert frozen is None
    _, leaked, other = torch.autograd.grad(term.own, [judge.weights, x0, slope], allow_unused=True)
    assert leaked is None
    assert other is None


def test_its_discriminator_is_as_wide_as_what_it_sees():
    assert Gan("backward", sees="critic").needs_critic()
    assert not Gan("backward", sees="teacher").needs_critic()
    judge = Gan("backward", sees="critic", width=8).modules((48, 8, 8), 128)["discriminator"]
    logits = judge(1000 * torch.randn(3, 64, 128), torch.rand(3))
    assert logits.shape == (3,)
    assert logits.isfinite().all()
    with pytest.raises(ValueError, match="sees: teacher needs a backbone that shows its features"):
        Gan("backward", sees="teacher").modules((48, 8, 8), None)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"streams": ("general",)}, "streams"),
        ({"streams": ()}, "streams"),
        ({"width": 2}, "width"),
        ({"sees": "student"}, "sees"),
        ({"depth": 0.0}, "depth"),
        ({"modules_lr": 0.0}, "modules_lr"),
        ({"weight": -1.0}, "weight"),
    ],
)
def test_what_makes_no_sense_is_refused(keys, sentence):
    with pytest.raises(ValueError, match=sentence):
        Gan("backward", **keys)

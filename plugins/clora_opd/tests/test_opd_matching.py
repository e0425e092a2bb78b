"""On-policy distillation: loss and gradient against float64, who is asked what, what changes no number, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve
from clora_opd import clora_losses
from clora_opd.matching import OnPolicyDistillation

from clora.api import Forward, LossTerm, Row, Simulated, StepContext, StepRng, StudentLoss, UsesSimulation
from clora.testing import drive, example_step
from clora.testing.conformance import problems_of

ROWS = [Row("general"), Row("effect", "ink"), Row("effect", "wool"), Row("effect", "ink")]
SHAPE = (4, 2, 3, 3)
#: the few steps of `a_step`, shift 3; row r stands at level STEPS[r]
LEVELS = np.array([1.0, 0.9, 0.75, 0.5])
STEPS = [0, 1, 2, 3]
#: v_teacher = a x_sigma + words; the words are 2 with and 0 without, and a tenth of the row's number
SLOPE = {"teacher": 0.5, "teacher_unconditional": 0.4}


def a_step(rows: list[Row] = ROWS, **more) -> StepContext:
    return example_step(rows, torch.zeros(len(rows), *SHAPE[1:]), rng=StepRng(9), steps=4, **more)


class Student:
    """v_student = theta x_sigma^2 + 0.3 at given states, as a simulation would leave it."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.theta = torch.tensor(0.7, requires_grad=True)
        self.x_sigma = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).to(dtype)
        self.sigma = torch.tensor(LEVELS[STEPS], dtype=torch.float32)

    def simulated(self, rows: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, Simulated]:
        velocity = self.theta.to(self.x_sigma) * self.x_sigma.square() + 0.3
        x0 = self.x_sigma - self.sigma.to(self.x_sigma).reshape(-1, 1, 1, 1) * velocity
        return {"backward": Simulated((0, 1, 2, 3), self.x_sigma, self.sigma, x0).on(rows)}


class Teachers:
    """Linear teachers with a weight each that must never get a gradient."""

    def __init__(self) -> None:
        self.weights = {role: torch.tensor(slope, requires_grad=True) for role, slope in SLOPE.items()}
        self.asked: list[Forward] = []

    def __call__(self, forward: Forward) -> torch.Tensor:
        self.asked.append(forward)
        return self.weights[forward.role] * forward.x_sigma + forward.conditions.text[..., None]


def run(loss: OnPolicyDistillation, step: StepContext, student: Student) -> tuple[LossTerm, Teachers]:
    teachers = Teachers()
    return drive(loss(step), teachers, student.simulated()), teachers


def by_hand(x: np.ndarray, guidance_scale: float, match: str) -> tuple[float, float, float]:
    """Loss, its derivative by theta and the relative distance, in float64 from the equations alone."""
    row = 0.1 * np.arange(len(x)).reshape(-1, 1, 1, 1)
    conditional, unconditional = 0.5 * x + 2 + row, 0.4 * x + row
    teacher = unconditional + guidance_scale * (conditional - unconditional)
    difference = 0.7 * x**2 + 0.3 - teacher
    distance = [np.linalg.norm(d) / np.linalg.norm(v) for d, v in zip(difference, teacher, strict=True)]
    if match == "velocity":
        return np.mean(difference**2), np.mean(2 * difference * x**2), np.mean(distance)
    h = np.array([0.1, 0.15, 0.25, 0.5]).reshape(-1, 1, 1, 1)  # to the level below, and from the last one to 0
    return 0.5 * np.mean((h * difference) ** 2), np.mean(h**2 * difference * x**2), np.mean(distance)


def test_opd_registers_itself_and_needs_a_simulation_but_no_critic():
    assert [(c.name, c.load()) for c in clora_losses()] == [("opd", OnPolicyDistillation)]
    loss = OnPolicyDistillation("backward")
    assert isinstance(loss, UsesSimulation)
    assert isinstance(loss, StudentLoss)
    assert not loss.needs_critic()
    assert loss.streams == ("general", "effect")


def test_opd_conforms():
    for keys in ({}, {"guidance_scale": 4.5}, {"match": "transition"}, {"streams": ("effect",)}):
        assert problems_of("losses", OnPolicyDistillation("backward", **keys)) == []


@pytest.mark.parametrize("guidance_scale", [1.0, 4.5, 0.0])
@pytest.mark.parametrize("match", ["velocity", "transition"])
def test_opd_loss_and_gradient_are_those_of_the_equation(guidance_scale, match):
    student = Student()
    loss = OnPolicyDistillation("backward", guidance_scale=guidance_scale, match=match)
    term, teachers = run(loss, a_step(), student)
    term.loss.backward()
    value, slope, distance = by_hand(student.x_sigma.double().numpy(), guidance_scale, match)
    assert term.loss.item() == pytest.approx(value, rel=1e-5)
    assert student.theta.grad is not None
    assert student.theta.grad.item() == pytest.approx(slope, rel=1e-4)
    assert term.logs == {"velocity_distance": pytest.approx(distance, rel=1e-5)}
    assert all(weight.grad is None for weight in teachers.weights.values())  # nothing through either teacher


def test_opd_takes_the_backbones_own_guidance_where_asked():
    student, step = Student(), evolve(a_step(), guide=lambda c, u, w: w * c * c - u)
    term, _ = run(OnPolicyDistillation("backward", guidance="own", guidance_scale=3.0), step, student)
    x = student.x_sigma.double().numpy()
    row = 0.1 * np.arange(4).reshape(-1, 1, 1, 1)
    teacher = 3 * (0.5 * x + 2 + row) ** 2 - (0.4 * x + row)
    assert term.loss.item() == pytest.approx(np.mean((0.7 * x**2 + 0.3 - teacher) ** 2), rel=1e-5)


def test_opd_transition_is_the_euler_step_of_student_and_teacher():
    """DiffusionOPD Eq. 12: half the squared distance of x + (sigma' - sigma) v of the two, of the step drawn."""
    student, step = Student(), a_step()
    term, _ = run(OnPolicyDistillation("backward", match="transition"), step, student)
    x = student.x_sigma.double().numpy()
    row = 0.1 * np.arange(4).reshape(-1, 1, 1, 1)
    after = np.array([0.9, 0.75, 0.5, 0.0]).reshape(-1, 1, 1, 1)
    there = [x + (after - LEVELS.reshape(-1, 1, 1, 1)) * v for v in (0.7 * x**2 + 0.3, 0.5 * x + 2 + row)]
    assert [step.schedule.sigmas[i] for i in STEPS] == pytest.approx(LEVELS)
    assert term.loss.item() == pytest.approx(0.5 * np.mean((there[0] - there[1]) ** 2), rel=1e-5)


def test_opd_asks_each_rows_own_teacher_under_its_own_words_without_gradient():
    student = Student()
    _, teachers = run(OnPolicyDistillation("backward", guidance_scale=4.5), a_step(), student)
    conditional, unconditional = teachers.asked
    assert (conditional.role, unconditional.role) == ("teacher", "teacher_unconditional")
    assert conditional.adapters == unconditional.adapters == (None, "ink", "wool", "ink")
    assert [float(forward.conditions.text[0]) for forward in teachers.asked] == [2, 0]
    for forward in teachers.asked:
        assert not forward.grad
        assert torch.equal(forward.x_sigma, student.x_sigma)
        assert torch.equal(forward.sigma, student.sigma)


def test_opd_without_guidance_asks_one_teacher_once():
    _, teachers = run(OnPolicyDistillation("backward"), a_step(), Student())
    assert [forward.role for forward in teachers.asked] == ["teacher"]


def test_opd_is_zero_for_a_student_that_answers_as_its_teacher():
    x, sigma = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2)), torch.full((4,), 0.5)
    simulated = Simulated((0, 1, 2, 3), x, sigma, x - 0.5 * (2 * x))
    term = drive(OnPolicyDistillation("backward")(a_step()), lambda f: 2 * f.x_sigma, {"backward": simulated})
    assert term.loss.item() == pytest.approx(0, abs=1e-12)
    assert term.logs["velocity_distance"] == pytest.approx(0, abs=1e-6)


def test_opd_detaches_the_states_and_lets_the_gradient_through_the_velocity_alone():
    student = Student()
    simulated = student.simulated()["backward"]
    state = student.x_sigma.clone().requires_grad_()
    term = drive(OnPolicyDistillation("backward")(a_step()), Teachers(), {"backward": evolve(simulated, x_sigma=state)})
    term.loss.backward()
    assert state.grad is None
    assert student.theta.grad is not None
    assert student.theta.grad.item() == pytest.approx(by_hand(student.x_sigma.double().numpy(), 1.0, "velocity")[1])


@pytest.mark.parametrize("match", ["velocity", "transition"])
def test_opd_does_not_depend_on_the_order_of_the_rows(match):
    order = [2, 0, 3, 1]
    student, step = Student(), a_step()
    words = step.conditions.take(order)
    turned = evolve(a_step([ROWS[i] for i in order]), conditions=words, rows=tuple(order))
    loss = OnPolicyDistillation("backward", guidance_scale=4.5, match=match)
    terms = [drive(loss(each), Teachers(), student.simulated()) for each in (step, turned)]
    assert terms[1].loss.item() == pytest.approx(terms[0].loss.item(), rel=1e-6)


def test_opd_reads_the_rows_of_its_streams_alone():
    student, step = Student(), a_step()
    part = step.select(("effect",))
    assert part.rows == (1, 2, 3)
    term = drive(OnPolicyDistillation("backward", streams=("effect",))(part), Teachers(), student.simulated())
    x = student.x_sigma.double().numpy()[1:]
    row = 0.1 * np.array([1, 2, 3]).reshape(-1, 1, 1, 1)
    assert term.loss.item() == pytest.approx(np.mean((0.7 * x**2 + 0.3 - (0.5 * x + 2 + row)) ** 2), rel=1e-5)


def test_opd_computes_in_float32_for_half_precision_latents():
    half, single = (
        run(OnPolicyDistillation("backward"), a_step(), Student(dtype))[0] for dtype in (torch.bfloat16, torch.float32)
    )
    assert half.loss.dtype == torch.float32
    assert half.loss.item() == pytest.approx(single.loss.item(), rel=0.02)


def test_opd_weight_follows_the_run():
    loss = OnPolicyDistillation("backward", weight=2.0, fade_in=0.5, fade_out=0.25)
    assert [loss.weight_at(p) for p in (0.0, 0.25, 0.5, 0.875)] == [0.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"guidance_scale": -1.0},
        {"guidance_scale": 100.5},
        {"weight": -1.0},
        {"streams": ()},
        {"streams": ("x",)},
        {"fade_in": 1.5},
        {"match": "x0"},
    ],
)
def test_opd_keys_have_bounds(wrong):
    with pytest.raises(ValueError, match=r"."):
        OnPolicyDistillation("backward", **wrong)

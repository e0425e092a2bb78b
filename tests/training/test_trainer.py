"""One cycle: who is updated from what, in which order and at which cost, under both schedules of rollouts."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve, field, frozen
from torch import nn
from two_effects import RECIPE, TwoEffects

from clora import cli
from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.adapters.evaluator import Evaluator
from clora.config.schema import Critic, Recipe, Train
from clora.contracts.step import Await, LossTerm, Simulated, Trajectory
from clora.contracts.values import EffectCard, Row
from clora.diffusion.rng import StepRng
from clora.planning.cost import forward_equivalents
from clora.planning.plan import Plan
from clora.testing import example_step
from clora.training.distributed import Distributed
from clora.training.objective import NonFiniteLossError
from clora.training.optimizer import TrainableAdapter
from clora.training.trainer import Trainer

EFFECT, GENERAL = ("effect",), ("general",)
BOTH = ("general", "effect")


# --- a small world -------------------------------------------------------------------------------------------------


class Backbone:
    """v = W x over channels, plus the mean of the words."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Module()
        self.network.mix = nn.Linear(2, 2)

    def velocity(self, x_sigma, sigma, conditions):
        words = conditions.text.mean((1, 2)).reshape(-1, 1, 1, 1)
        return self.network.mix(x_sigma.movedim(1, -1)).movedim(-1, 1) + words


@frozen
class FixedRouter:
    """The same rows in every step."""

    rows: tuple[Row, ...]

    def route(self, rng, rows, effects):
        raise AssertionError("the batches below read `rows`")


class FixedBatches:
    """Steps over the router's rows; the targets are noise of the step."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.steps: list[int] = []

    def context(self, rng, phase, schedule):
        self.steps.append(rng.step)
        rows = self.recipe.router.rows
        targets = rng.normal("targets", torch.empty(len(rows), 2, 3, 3))
        return example_step(rows, targets, phase=phase, rng=rng, steps=len(schedule))


# --- components that remember what they saw ------------------------------------------------------------------------


@frozen
class Simulation:
    """One forward from pure noise, noting (what, phase, step, has a trajectory)."""

    seen: list = field(factory=list)

    def simulate(self, step):
        self.seen.append(("simulate", step.phase, step.rng.step, step.trajectory is not None))
        x = step.rng.normal("noise", step.targets)
        sigma = torch.ones(len(step.rows))
        (velocity,) = yield (step.forward("student", x, sigma, grad=True),)
        return Simulated(step.rows, x, sigma, x - velocity)

    def check_schedule(self, schedule):
        return ()


@frozen
class SharedSimulation(Simulation):
    """The same with a rollout of one step."""

    def rollout(self, step):
        self.seen.append(("rollout", step.phase, step.rng.step, step.trajectory is not None))
        x = step.rng.normal("noise", step.targets)
        (velocity,) = yield (step.forward("student", x, torch.ones(len(step.rows))),)
        return Trajectory(x[None], (x - velocity)[None])


@frozen
class OnSimulation:
    """Mean square of the role's velocity at the simulation's x0 (student phase: of x0 itself), noting each x0."""

    simulation: str
    seen: list
    streams: tuple = BOTH
    weight: float = 1.0

    def __call__(self, step):
        x0 = (yield Await(self.simulation)).on(step.rows).x0
        self.seen.append((step.phase, step.rng.step, x0.detach().clone(), x0.requires_grad))
        if step.phase == "student":
            return LossTerm(x0.square().mean())
        (velocity,) = yield (step.forward("critic", x0.detach(), torch.ones(len(step.rows)), grad=True),)
        return LossTerm(velocity.square().mean(), {"rows": float(len(step.rows))})


@frozen
class Direct:
    """`factor` times the mean of the trained role's velocity at the targets, after `twist`."""

    streams: tuple = BOTH
    weight: float = 1.0
    factor: float = 1.0
    twist: Any = None

    def __call__(self, step):
        sigma = torch.full((len(step.rows),), 0.5)
        (velocity,) = yield (step.forward(step.phase, step.targets, sigma, grad=True),)
        loss = self.factor * velocity.mean()
        return LossTerm(loss if self.twist is None else self.twist(velocity))


class Setting:
    """A cycle over the small world with all that a test looks at."""

    def __init__(self, rows: tuple[Row, ...], schedule="independent", critic: Critic | None = None, **parts) -> None:
        train = Train(steps=10, schedule=schedule, batch_size=len(rows), lr=1e-2)
        self.recipe = Recipe(None, None, None, FixedRouter(rows), None, train=train, critic=critic, **parts)
        backbone = Backbone()
        adapted = AdaptedNetwork(backbone.network, ["mix"])
        for name in ("ink", "wax"):
            adapted.add(name, Adapter.fresh({"mix": (2, 2)}, 1, 1.0, StepRng(0).named(name), trainable=False))
        self.student, self.critic = (
            TrainableAdapter(adapted.add(name, adapter), 1e-2, train, Distributed())
            for name in ("student", "critic")
            for adapter in [Adapter.fresh({"mix": (2, 2)}, 1, 1.0, StepRng(0).named(name))]
        )
        self.batches = FixedBatches(self.recipe)
        self.evaluator = Evaluator(backbone, adapted)
        trained = self.critic if critic else None
        self.trainer = Trainer(self.recipe, self.batches, self.evaluator, self.student, trained)

    def run(self, update: int) -> dict[str, float]:
        return self.trainer.cycle(update, StepRng(0))


INK, WAX, PLAIN = Row("effect", "ink"), Row("effect", "wax"), Row("general")


def with_simulation(
    schedule: str, simulation: Simulation, updates: int = 5, rows=(PLAIN, INK), reuse: bool = True
) -> tuple[Setting, list]:
    seen: list = []
    loss = OnSimulation("backward", seen)
    critic = Critic(updates=updates, reuse_rollout=reuse, losses={"follow": loss})
    return Setting(rows, schedule, critic, simulations={"backward": simulation}, losses={"dmd": loss}), seen


# --- who is simulated, when, from which step -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Simulation, SharedSimulation])
def test_independent_makes_a_rollout_for_every_update_but_the_critics_first(kind):
    simulation = kind()
    setting, _ = with_simulation("independent", simulation)
    setting.run(3)
    # update 3 of 5 critic updates each is made of the run's steps 15 to 19
    assert simulation.seen == [("simulate", "student", 15, False)] + [
        ("simulate", "critic", step, False) for step in range(16, 20)
    ]
    assert setting.batches.steps == [15, 16, 17, 18, 19]


def test_independent_gives_the_students_own_x_g_to_the_critics_first_update():
    setting, seen = with_simulation("independent", Simulation())
    setting.run(0)
    assert [(phase, step) for phase, step, *_ in seen] == [("student", 0)] + [("critic", k) for k in range(5)]
    assert torch.equal(seen[0][2], seen[1][2])
    assert [requires_grad for *_, requires_grad in seen] == [True] + [False] * 5
    assert not any(torch.equal(seen[0][2], x0) for _, _, x0, _ in seen[2:])


def test_a_fresh_rollout_for_the_critics_first_update_is_of_the_updated_student_with_noise_of_its_own():
    simulation = Simulation()
    setting, seen = with_simulation("independent", simulation, reuse=False)
    setting.run(3)
    assert simulation.seen == [("simulate", "student", 15, False)] + [
        ("simulate", "critic", step, False) for step in range(15, 20)
    ]
    assert setting.batches.steps == [15, 16, 17, 18, 19]  # the same rows
    assert [requires_grad for *_, requires_grad in seen] == [True] + [False] * 5
    assert not torch.equal(seen[0][2], seen[1][2])


def test_shared_makes_one_rollout_and_updates_the_student_last():
    simulation = SharedSimulation()
    setting, seen = with_simulation("shared", simulation)
    setting.run(3)
    assert simulation.seen == [("rollout", "student", 15, False)] + [
        ("simulate", "critic", step, True) for step in range(15, 20)
    ] + [("simulate", "student", 15, True)]
    # the losses draw anew in every update too
    assert [(phase, step) for phase, step, *_ in seen] == [("critic", k) for k in range(15, 20)] + [("student", 15)]
    assert setting.batches.steps == [15]


def test_shared_still_serves_simulations_that_have_no_rollout_to_share():
    simulation = Simulation()
    setting, seen = with_simulation("shared", simulation)
    setting.run(0)
    assert [what for what, *_ in simulation.seen] == ["simulate"] * 6
    assert len(seen) == 6


@pytest.mark.parametrize("schedule", ["independent", "shared"])
def test_both_adapters_move_and_the_gradients_are_used_up(schedule):
    setting, _ = with_simulation(schedule, SharedSimulation())
    before = [each.adapter.flat.clone() for each in (setting.student, setting.critic)]
    logs = setting.run(0)
    for each, flat in zip((setting.student, setting.critic), before, strict=True):
        assert not torch.equal(each.adapter.flat, flat)
        assert not each.adapter.flat_grad.any()
    assert set(logs) == {"dmd", "critic.follow", "critic.follow.rows", "student.grad_norm", "critic.grad_norm"}
    assert setting.critic.optimizer.state[setting.critic.adapter.parameter]["step"] == 5
    assert setting.student.optimizer.state[setting.student.adapter.parameter]["step"] == 1


@pytest.mark.parametrize("schedule", ["independent", "shared"])
def test_a_simulation_that_no_present_row_needs_is_not_run(schedule):
    simulation = SharedSimulation()
    loss = OnSimulation("backward", [], streams=EFFECT)
    setting = Setting(
        (PLAIN, PLAIN), schedule, simulations={"backward": simulation}, losses={"a": loss, "b": Direct(weight=2.0)}
    )
    logs = setting.run(0)
    assert [what for what, *_ in simulation.seen if what == "simulate"] == []
    assert set(logs) == {"b", "student.grad_norm"}


def test_without_a_critic_every_update_is_one_step():
    setting = Setting((PLAIN, INK), losses={"a": Direct()})
    setting.run(0)
    setting.run(7)
    assert setting.batches.steps == [0, 7]


# --- what the losses add up to -------------------------------------------------------------------------------------


def test_the_gradient_is_the_weighted_sum_over_the_rows_of_each_losss_streams_by_the_whole_batch():
    """v = W x + (scale B A) x + words with B = 0: d mean(v) / dB = scale (A x) / numel, by hand in float64."""
    losses = {"all": Direct(weight=2.0), "effects": Direct(EFFECT, weight=0.5), "none": Direct(GENERAL, weight=0.0)}
    rows = (PLAIN, INK, WAX)
    setting = Setting(rows, losses=losses)
    a, _, scale = setting.student.adapter.factors["mix"]
    grads = []
    setting.student.optimizer.register_step_pre_hook(lambda *_: grads.append(setting.student.adapter.flat_grad.clone()))
    targets = StepRng(0).normal("targets", torch.empty(3, 2, 3, 3)).double().numpy()
    shrunk = np.einsum("ri,nihw->rnhw", a.detach().double().numpy(), targets)
    expected = scale * (2.0 * shrunk.sum() / (3 * 2 * 9) + 0.5 * shrunk[:, 1:].sum() / (3 * 2 * 9))
    setting.run(0)
    np.testing.assert_allclose(grads[0][2:].numpy(), [expected] * 2, rtol=1e-4)  # A has two numbers, then come B's
    np.testing.assert_allclose(grads[0][:2].numpy(), 0.0)


@frozen
class Rising(Direct):
    """A weight that rises with the run."""

    def weight_at(self, progress):
        return 4.0 * progress


def test_a_weight_that_changes_over_the_run_scales_the_gradient():
    """Update 5 of 10: 4 (5 / 10) = 2 times the gradient of weight 1."""
    made = []
    for loss in (Direct(), Rising()):
        setting = Setting((PLAIN, INK), losses={"a": loss})
        grads: list[torch.Tensor] = []
        setting.student.optimizer.register_step_pre_hook(
            lambda *_, setting=setting, grads=grads: grads.append(setting.student.adapter.flat_grad.clone())
        )
        setting.run(5)
        made.append(grads[0])
    torch.testing.assert_close(made[1], 2.0 * made[0])


def test_rows_that_no_loss_reads_leave_the_weights_alone():
    setting = Setting((PLAIN,), losses={"a": Direct(EFFECT)})
    before = setting.student.adapter.flat.clone()
    assert setting.run(0) == {}
    assert torch.equal(setting.student.adapter.flat, before)


def test_a_rank_without_terms_still_takes_part_when_another_has_some(monkeypatch):
    """Ranks draw routes of their own; one that stayed away from the average would leave the others waiting."""
    setting = Setting((PLAIN,), losses={"a": Direct(EFFECT)})
    before = setting.student.adapter.flat.clone()
    monkeypatch.setattr(Distributed, "any", lambda self, flag: True)
    monkeypatch.setattr(Distributed, "average", lambda self, flat: flat.fill_(0.5))
    logs = setting.run(0)
    assert logs["student.grad_norm"] == pytest.approx(1.0)  # four numbers of one half
    assert not torch.equal(setting.student.adapter.flat, before)


def test_packing_changes_no_number():
    flats = []
    for pack in (True, False):
        setting, _ = with_simulation("independent", Simulation())
        setting.evaluator.pack = pack
        setting.run(0)
        flats.append(torch.cat([setting.student.adapter.flat, setting.critic.adapter.flat]))
    torch.testing.assert_close(*flats)


# --- numbers that are not finite -----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_its_place_and_changes_nothing():
    losses = {"fine": Direct(), "ts_dmd": Direct(EFFECT, factor=float("nan"))}
    setting = Setting((PLAIN, INK, WAX), losses=losses)
    before = setting.student.adapter.flat.clone()
    with pytest.raises(NonFiniteLossError, match="student update 5: the term ts_dmd is not") as raised:
        setting.run(4)
    assert "(streams: effect; effects: ink, wax)" in str(raised.value)
    assert torch.equal(setting.student.adapter.flat, before)


def test_the_general_stream_has_no_effects_to_name():
    setting = Setting((PLAIN, INK), losses={"bs_dmd": Direct(GENERAL, factor=float("inf"))})
    with pytest.raises(NonFiniteLossError, match=r"bs_dmd .*\(streams: general; effects: none\)"):
        setting.run(0)


@pytest.mark.parametrize("schedule", ["independent", "shared"])
def test_the_critics_loss_is_named_as_the_critics(schedule):
    critic = Critic(updates=2, losses={"follow": Direct(factor=float("nan"))})
    setting = Setting((WAX,), schedule, critic, losses={"a": Direct()})
    before = setting.critic.adapter.flat.clone()
    with pytest.raises(NonFiniteLossError, match=r"critic update 1: the term critic\.follow .*effects: wax"):
        setting.run(0)
    assert torch.equal(setting.critic.adapter.flat, before)


def test_a_gradient_that_is_not_finite_is_named_and_changes_nothing():
    """The square root's slope at zero: a finite loss whose gradient is not a number."""
    setting = Setting((INK,), losses={"a": Direct(twist=lambda velocity: (0.0 * velocity).abs().sqrt().mean())})
    before = setting.student.adapter.flat.clone()
    with pytest.raises(NonFiniteLossError, match=r"student update 1: the term gradient .*effects: ink"):
        setting.run(0)
    assert torch.equal(setting.student.adapter.flat, before)


# --- the paper's recipe, counted -----------------------------------------------------------------------------------


def papers_plan(p_switch: float, schedule: str, **dmd) -> Plan:
    """BS-DMD + TS-DMD + TA-FM over backward and target simulation, 8 steps, 5 critic updates, guidance 5."""
    losses_of_dmd = pytest.importorskip("clora_dmd.dmd").Dmd
    recipe = Recipe(
        backbone=None,
        dataset=None,
        teachers=None,
        router=pytest.importorskip("clora_pdsr.router").Pdsr(p_switch=p_switch),
        prompts=None,
        simulations={
            "backward": pytest.importorskip("clora_dmd.backward").Backward(),
            "target": pytest.importorskip("clora_dmd.target").Target(),
        },
        losses={
            "bs_dmd": losses_of_dmd("backward", **dmd),
            "ts_dmd": losses_of_dmd("target", streams=EFFECT, tau_min=500.0, **dmd),
            "ta_fm": pytest.importorskip("clora_tafm.anchoring").TaFm(),
        },
        critic=Critic(
            updates=5, losses={"follow": pytest.importorskip("clora_dmd.critic").CriticFlowMatching("backward")}
        ),
        train=Train(schedule=schedule, batch_size=32),
    )
    cards = tuple(EffectCard(name, None, "", "") for name in ("ink", "wax"))
    return Plan(recipe, "", "", cards, {}, tuple(card.name for card in cards))


@pytest.mark.parametrize(("p_switch", "expected"), [(0.0, 42.5), (0.5, 47.0), (1.0, 51.5)])
def test_the_independent_schedule_costs_about_47_forwards_a_row(p_switch, expected):
    """A forward is 1, one with its backward 3; the drawn step is 0..7, so 3.5 steps come before it.

    Student, every row: 3.5 + 3 (backward simulation) + 3 (critic, teacher, no words) = 9.5.
    Student, effect rows besides: 3 (target simulation) + 3 (its scores) + 3 (TA-FM) = 9.
    Critic: its first update reads the student's x_g: 3. The other four: 4 (3.5 + 1 + 3) = 30.
    Sum: 42.5 + 9 p.
    """
    counted = forward_equivalents(papers_plan(p_switch, "independent"), cycles=12)
    assert counted == pytest.approx(expected, rel=0.03)


def test_a_fresh_rollout_for_the_critics_first_update_costs_four_and_a_half_forwards_more():
    """3.5 + 1 without gradient for the rollout that was read before: 47 + 4.5."""
    plan = papers_plan(0.5, "independent")
    fresh = evolve(plan.recipe.critic, reuse_rollout=False)
    counted = forward_equivalents(evolve(plan, recipe=evolve(plan.recipe, critic=fresh)), cycles=12)
    assert counted == pytest.approx(51.5, rel=0.03)


@pytest.mark.parametrize(("p_switch", "expected"), [(0.0, 29.0), (1.0, 38.0)])
def test_the_shared_schedule_costs_exactly_this_in_one_stream(p_switch, expected):
    """8 (one rollout) + 5 * 3 (critic) + 3 + 3 (student and scores there) = 29, and 9 more for an effect's row."""
    assert forward_equivalents(papers_plan(p_switch, "shared"), cycles=2) == expected


def test_the_shared_schedule_costs_about_34_forwards_a_row():
    """29 + 9 / 2 = 33.5."""
    assert forward_equivalents(papers_plan(0.5, "shared"), cycles=12) == pytest.approx(33.5, rel=0.03)


def test_without_guidance_no_unconditional_score_is_asked_for():
    """One forward less for each DMD term: two in an effect's row."""
    assert forward_equivalents(papers_plan(1.0, "shared", guidance_scale=1.0), cycles=2) == 36.0


def test_without_losses_nothing_is_counted():
    plan = papers_plan(0.5, "shared")
    assert forward_equivalents(evolve(plan, recipe=evolve(plan.recipe, losses={}))) == 0.0


# --- how far a gradient is from the command line -------------------------------------------------------------------


def test_from_clora_run_to_a_gradient_it_is_at_most_seven_frames(tmp_path, monkeypatch):
    stacks: list[list[str]] = []
    backward = torch.Tensor.backward

    def noting(self, *args, **kwargs):
        frames = [frame for frame in traceback.extract_stack() if "/clora/" in frame.filename]
        stacks.append([f"{Path(frame.filename).stem}.{frame.name}" for frame in frames])
        return backward(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", noting)
    small = TwoEffects(("warm_start=null", "train.steps=1"))
    words = ["run", str(RECIPE), "--run-dir", str(tmp_path / "run"), "--quiet"]
    assert cli.main([*words, *(word for key in small.words for word in ("--set", key))]) == 0
    from_the_command = [stack[stack.index("run.run") :] for stack in stacks]
    assert from_the_command
    assert max(map(len, from_the_command)) <= 7, from_the_command[0]

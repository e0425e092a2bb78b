"""Counting what a run costs takes bounded work, whatever an accepted recipe asks for; tested by counted calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from attrs import evolve, field, frozen

from clora.config.load import load_recipe
from clora.contracts.step import Forward, ForwardCoroutine, LossTerm, StepContext
from clora.contracts.values import Route, Row, Stream
from clora.diffusion.flow import MOST_STEPS, Schedule, ScheduleError
from clora.diffusion.rng import StepRng
from clora.planning.cost import MOST_ROWS, MOST_WORK, ROWS_AT_ONCE, _Count, cost, count
from clora.planning.memory import Counted
from clora.planning.plan import Plan, make_plan
from clora.planning.teacher_schedule import MOST_ROWS as ROUTED_ROWS, foreseen, slots_problem
from clora.plugin_system.discovery import discover

RECIPES = Path(__file__).parents[2] / "recipes"


def planned(*sets: str) -> Plan:
    return make_plan(load_recipe(RECIPES / "collection.yaml", (), sets, discover()), thorough=False)


class Watched:
    """Counts the evaluations, their rows and the updates that counting itself asks for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.evaluations = self.rows = self.most_rows = self.spent = 0
        call, spend = _Count.__call__, _Count.spend

        def counted(count: _Count, forwards: Sequence[Forward]) -> list[torch.Tensor]:
            answers = call(count, forwards)
            self.evaluations += len(forwards)
            self.rows += sum(len(forward.x_sigma) for forward in forwards)
            self.most_rows = max(self.most_rows, *(len(forward.x_sigma) for forward in forwards))
            return answers

        def spent(count: _Count, work: int) -> None:
            self.spent += work
            spend(count, work)

        monkeypatch.setattr(_Count, "__call__", counted)
        monkeypatch.setattr(_Count, "spend", spent)


AT_THE_BOUNDS = [
    ["student.steps=1000", "critic.updates=1000", "train.batch_size=4096"],
    ["student.steps=1000", "critic.updates=1000", "train.batch_size=4096", "train.schedule=shared"],
    ["critic.updates=1000", "train.batch_size=1"],
    ["student.steps=1000", "critic.updates=1", "simulations.backward.stop=always_all"],
    ["critic.updates=1000", "router.p_switch=0", "critic.losses.on_backward=null"],  # updates without an evaluation
]


@pytest.mark.slow(3)
@pytest.mark.parametrize("sets", AT_THE_BOUNDS)
def test_counting_is_bounded_at_the_bounds_of_the_keys(monkeypatch, sets):
    plan, watched = planned(*sets), Watched(monkeypatch)
    counted = count(plan)
    assert 0 < watched.evaluations <= MOST_WORK
    assert watched.most_rows <= MOST_ROWS
    assert watched.rows <= MOST_WORK * ROWS_AT_ONCE
    assert watched.spent <= MOST_WORK + 2 * plan.recipe.student.steps
    assert counted.forward_equivalents > 0


@pytest.mark.slow
def test_a_cycle_that_is_too_dear_to_run_once_is_told_as_more_than(monkeypatch):
    made: list[Counted] = []

    def kept(plan: Plan) -> Counted:
        made.append(count(plan))
        return made[-1]

    monkeypatch.setattr("clora.planning.cost.count", kept)
    text = cost(planned(*AT_THE_BOUNDS[0], "warm_start=null"))
    (counted,) = made
    assert counted.cut_short
    assert counted.forward_equivalents > 1000
    assert f"more than {counted.forward_equivalents:.1f} a row and cycle" in text
    assert text.count("more than ") == 2


@pytest.mark.slow
def test_the_papers_recipe_is_counted_in_all_its_cycles(monkeypatch):
    watched = Watched(monkeypatch)
    counted = count(planned("critic.updates=5", "losses.bs_dmd.guidance_scale=5", "losses.ts_dmd.guidance_scale=5"))
    assert not counted.cut_short
    assert watched.spent < 0.8 * MOST_WORK


def test_a_large_batch_costs_as_much_a_row_and_holds_as_many_times_the_rows():
    small, large = (count(planned(f"train.batch_size={rows}"), cycles=6) for rows in (MOST_ROWS, 16 * MOST_ROWS))
    assert large.forward_equivalents == small.forward_equivalents
    assert large.rows_held == 16 * small.rows_held
    assert large.rows_with_grad == 16 * small.rows_with_grad
    assert large.rows_without == 16 * small.rows_without


@frozen
class Greedy:
    """A stranger's loss that asks for any number of evaluations."""

    evaluations: int
    streams: tuple[Stream, ...] = ("general", "effect")
    weight: float = 1.0

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        sigma = torch.ones(len(step.rows))
        (velocity,) = yield (step.forward("student", step.targets, sigma, grad=True),)
        for _ in range(self.evaluations):
            yield (step.forward("teacher", step.targets, sigma),)
        return LossTerm(velocity.square().mean())


def with_loss(plan: Plan, loss: Greedy) -> Plan:
    return evolve(plan, recipe=evolve(plan.recipe, losses={"greedy": loss}, critic=None, simulations={}))


def test_a_strangers_loss_runs_as_it_is_and_no_longer_than_the_budget():
    plan = planned()
    assert count(with_loss(plan, Greedy(7))) == Counted(10.0, 12, 12, 12)
    endless = count(with_loss(plan, Greedy(10**9)))
    assert endless.cut_short
    assert endless.forward_equivalents == pytest.approx(MOST_WORK, abs=4)


@frozen
class Calls:
    """A router of one effect a batch that notes how often it is asked."""

    asked: list[int] = field(factory=list)

    def route(self, rng: StepRng, rows: int, effects: Sequence[str]) -> Route:
        self.asked.append(rng.step)
        return Route((Row("effect", effects[rng.step % len(effects)]),) * rows)


@pytest.mark.parametrize(("steps", "rows"), [(1_000_000, 1), (1_000_000, 12), (1_000_000, 4096), (4, 2), (0, 2)])
def test_the_teachers_of_a_run_are_looked_up_in_bounded_work(steps, rows):
    recipe = planned("teacher.slots=1", "train.steps=4", "router.per=batch", "warm_start=null").recipe
    calls = Calls()
    recipe = evolve(recipe, router=calls, train=evolve(recipe.train, steps=steps, batch_size=rows))
    assert slots_problem(recipe, StepRng(0), ["ink", "wax", "clay"]) is None
    assert len(calls.asked) == len(foreseen(recipe)) if rows > 1 else not calls.asked
    assert len(calls.asked) * rows <= max(ROUTED_ROWS, rows)
    if steps:
        assert foreseen(recipe)[-1] >= 0.9 * steps - 2  # to the end of the run


def test_a_schedule_is_bounded_for_whoever_makes_one():
    levels = Schedule.shifted(MOST_STEPS, 100.0).tensor()
    assert len(levels) == MOST_STEPS
    assert bool((levels[1:] < levels[:-1]).all())  # in float32 too
    assert bool((Schedule.shifted(MOST_STEPS, 0.01).tensor().diff() < 0).all())
    for steps in (0, -1, MOST_STEPS + 1, 10**30):
        with pytest.raises(ScheduleError, match="a schedule has 1 to 1000 steps"):
            Schedule.shifted(steps, 3.0)
    for levels in ((1.0, 1.0), (0.5, 0.9), (1.5, 0.5), (1.0, 0.0), (1.0, float("nan")), ()):
        with pytest.raises(ScheduleError):
            Schedule(levels)

"""Training with two teachers on the device at a time: the same numbers as with all, and each asked for in advance."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from attrs import define, evolve, field
from safetensors.torch import load_file
from shallow_emoji import shallow_emoji

from clora.adapters.teacher_prefetch import Source
from clora.config.load import load_recipe
from clora.config.problems import RecipeError
from clora.diffusion.rng import StepRng
from clora.errors import CloraError
from clora.inference.session import ModelSession
from clora.planning.plan import Plan, make_plan
from clora.planning.teacher_schedule import slots_problem, teachers_of
from clora.plugin_system.discovery import discover
from clora.runs.files.steps import read_steps
from clora.runs.run_dir import RunDir
from clora.runs.stages.export import export
from clora.runs.stages.prepare import prepare
from clora.training.batches import Batches
from clora.training.distributed import Distributed
from clora.training.loop import Watchers, train

RECIPE = Path(__file__).parents[2] / "recipes/collection.yaml"
EFFECTS = ("duotone_ocean", "thermal", "scan_lines", "solarise")
SETS = (
    *shallow_emoji(),
    f"effects=[{', '.join(EFFECTS)}]",
    "student.rank=4",
    "student.ema=null",
    "student.steps=4",
    "train.steps=5",
    "warm_start=null",
    "train.batch_size=2",
    "router.p_switch=0.8",
    "teacher.steps=1",
)


def plan_with(*more: str) -> Plan:
    return make_plan(load_recipe(RECIPE, (), [*SETS, *more], discover()))


@define
class Told:
    """A world's slots, which note in order what they are told: `ahead`, `read` and `need` of a teacher."""

    session: ModelSession
    notes: list[tuple[str, str]] = field(factory=list)

    def listen(self) -> None:
        slots = self.session.teachers
        need, ahead, read = slots.need, slots.ahead, slots.loader.read

        def noted_need(names: Sequence[str]) -> None:
            self.notes += [("need", name) for name in names]
            need(names)

        def noted_ahead(names: Sequence[str]) -> None:
            self.notes += [("ahead", name) for name in names]
            ahead(names)

        def noted_read(source):
            self.notes.append(("read", source.path.stem))
            return read(source)

        slots.need, slots.ahead, slots.loader.read = noted_need, noted_ahead, noted_read


def trained(plan: Plan, folder: RunDir) -> Told:
    """Train and export with the targets of the cache beside the folder."""
    folder.path.mkdir(parents=True)
    session = ModelSession(plan)
    targets = prepare(plan, session, folder)
    told = Told(session)
    told.listen()
    student = train(plan, session, Batches(plan, session, targets), folder.path, Distributed(), Watchers())
    export(plan, session, folder, student)
    return told


@pytest.mark.slow
def test_two_slots_train_bit_for_bit_what_all_teachers_at_once_train(tmp_path: Path) -> None:
    whole, few = RunDir(tmp_path / "whole"), RunDir(tmp_path / "few")
    all_at_once, slots = plan_with(), plan_with("teacher.slots=2")
    assert all_at_once.digest == slots.digest  # it is the same run, carried out otherwise
    trained(all_at_once, whole)
    told = trained(slots, few)
    losses, again = ([step.losses for step in read_steps(folder.steps).reports] for folder in (whole, few))
    assert losses == again
    assert len(losses) == 5
    first, second = load_file(whole.lora), load_file(few.lora)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(told.session.adapted.adapters.keys() & set(EFFECTS)) <= 2
    assert len({name for what, name in told.notes if what == "need"}) > 2  # or nothing was switched
    assert not [thread for thread in threading.enumerate() if thread.name == "clora-teachers"]


@pytest.mark.slow
def test_the_next_cycles_teachers_are_asked_for_before_they_are_needed(tmp_path: Path) -> None:
    plan = plan_with("teacher.slots=4", "router.per=batch", "train.batch_size=1", "router.p_switch=1.0")
    told = trained(plan, RunDir(tmp_path / "run"))
    needed = [name for what, name in told.notes if what == "need"]
    assert list(dict.fromkeys(needed)) == list(
        dict.fromkeys(name for n in range(5) for name in teachers_of(plan.recipe, StepRng(0), EFFECTS, n))
    )
    for name in list(dict.fromkeys(needed))[1:]:  # nobody can be asked for before the first cycle has begun
        assert told.notes.index(("ahead", name)) < told.notes.index(("need", name))
    stalls = [step.logs["teacher.stall"] for step in read_steps(RunDir(tmp_path / "run").steps).reports]
    assert len(stalls) == 5
    assert all(stall >= 0 for stall in stalls)


def test_a_teacher_file_that_vanishes_during_training_is_told(tmp_path: Path) -> None:
    plan = plan_with("teacher.slots=2")
    folder = RunDir(tmp_path / "run")
    folder.path.mkdir()
    session = ModelSession(plan)
    batches = Batches(plan, session, prepare(plan, session, folder))
    session.teachers.need(["thermal", "solarise"])
    for name in ("duotone_ocean", "scan_lines"):
        session.teachers.sources[name] = Source(tmp_path / f"gone/{name}.safetensors")
    with pytest.raises(CloraError, match=r"gone/(duotone_ocean|scan_lines)\.safetensors: there is no such file"):
        train(plan, session, batches, folder.path, Distributed(), Watchers())
    assert not [thread for thread in threading.enumerate() if thread.name == "clora-teachers"]


def test_too_few_slots_are_told_with_the_plan() -> None:
    with pytest.raises(RecipeError) as caught:
        plan_with("teacher.slots=1", "router.p_switch=1.0")
    assert "teacher.slots: 1 are fewer than the 2 teachers that one batch follows" in str(caught.value)
    assert "--set teacher.slots" in str(caught.value)
    plan_with("teacher.slots=1", "router.per=batch")  # one teacher a batch, whatever its size


def test_the_most_teachers_of_a_batch_are_those_of_the_rank() -> None:
    recipe = plan_with("teacher.slots=2", "train.batch_size=4", "train.steps=0").recipe
    longer = evolve(recipe, train=evolve(recipe.train, steps=40))
    for rank in range(3):
        rng = StepRng(recipe.seed, rank=rank)
        routes = [recipe.router.route(rng.at(n).named("router"), 4, EFFECTS) for n in range(40)]
        most = max(len({row.effect for row in route.rows} - {None}) for route in routes)
        assert most > 2
        problem = slots_problem(longer, rng, EFFECTS)
        assert problem is not None
        assert f"the {most} teachers" in problem

"""Evaluation: what is served and what it is held against are sampled once where they are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from clora.config.load import load_recipe
from clora.inference.edit_sampler import EditSampler
from clora.inference.session import ModelSession
from clora.planning.cost import cost
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.plugin_system.guard import ComponentError
from clora.runs.run_dir import RunDir
from clora.runs.stages.evaluate import evaluate

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = ["effects=[duotone_ocean, thermal]", "teacher.steps=2", "evaluate.images=2", "evaluate.general_images=2"]


def plan_of(*sets: str) -> Plan:
    return make_plan(load_recipe(RECIPES / "effect_lora.yaml", (), [*SMALL, *sets], discover()))


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The adapters that were asked for pictures, one entry a sampling."""
    asked: list[str | None] = []
    real = EditSampler.teacher

    def teacher(self, adapter, *rest):
        asked.append(adapter)
        return real(self, adapter, *rest)

    monkeypatch.setattr(EditSampler, "teacher", teacher)
    return asked


def run(plan: Plan, folder: Path):
    folder.mkdir(parents=True)
    return evaluate(plan, ModelSession(plan), RunDir(folder), None, lambda text: None)[0]


def test_a_served_teacher_is_its_own_reference(sampled, tmp_path):
    evaluation = run(plan_of(), tmp_path / "runs/one")
    assert sampled == ["duotone_ocean", "thermal", None]
    assert all(part.student.equal(part.teacher) for part in evaluation.effects)
    assert evaluation.general.student.equal(evaluation.general.base)


def test_it_is_what_sampling_it_again_would_give(sampled, tmp_path):
    once = run(plan_of(), tmp_path / "with/one")
    again = run(plan_of("evaluate.teacher=false"), tmp_path / "without/one")  # no reference, so it must be sampled
    for one, other in zip(once.effects, again.effects, strict=True):
        assert other.teacher is None
        assert one.student.equal(other.student)


def test_other_words_than_the_teachers_are_sampled_for_themselves(sampled, tmp_path):
    evaluation = run(plan_of("serve.prompts=student"), tmp_path / "runs/one")
    assert sampled.count("thermal") == 2
    assert not evaluation.effects[1].student.equal(evaluation.effects[1].teacher)


def test_a_recipe_that_trains_nothing_has_no_adapters_in_training():
    assert "adapters in training" not in cost(plan_of())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_pictures_stay_in_files_and_not_in_memory(sampled, tmp_path):
    evaluation = run(plan_of("serve.prompts=student"), tmp_path / "runs/one")
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    mapped = [
        [int(end, 16) for end in line[0].split("-")] for line in lines if len(line) > 5 and "safetensors" in line[5]
    ]
    for part in (*evaluation.effects, evaluation.general):
        for pictures in (part.source, part.student):
            assert any(start <= pictures.data_ptr() < stop for start, stop in mapped)


class Fails:
    """A metric that cannot measure."""

    def measure(self, evaluation):
        raise RuntimeError("no")


def test_pictures_outlive_an_evaluation_that_is_cut_short(sampled, tmp_path):
    plan, folder = plan_of("serve.prompts=student"), RunDir(tmp_path / "runs/one")
    folder.path.mkdir(parents=True)
    session = ModelSession(plan)
    failing = evolve(plan, recipe=evolve(plan.recipe, metrics={"fails": Fails()}))
    with pytest.raises(ComponentError, match=r"^metrics\.fails: RuntimeError: no at "):
        evaluate(failing, session, folder, None, lambda text: None)
    assert folder.pictures.exists()
    made = len(sampled)
    again = evaluate(plan, session, folder, None, lambda text: None)[0]
    assert len(sampled) == made  # nothing was sampled twice
    files = {path.name for path in folder.pictures.parent.iterdir()}
    assert files == {"pictures.safetensors", "metric_pictures.safetensors", "results.json"}
    other = RunDir(tmp_path / "others/one")
    fresh = evaluate(plan, session, other, None, lambda text: None)[0]
    for one, two in zip(again.effects, fresh.effects, strict=True):
        assert one.student.equal(two.student)

"""The student's shift: where it comes from, that all who read it read the same, what is said where there is none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve, frozen

from clora.api import CloraError, Row, Schedule, ShiftsByTokens, StepRng, TokenShift, shift_by_tokens
from clora.cli import main
from clora.config.load import LoadedRecipe, load_recipe
from clora.config.schema import Student
from clora.inference import edit_sampler as serving
from clora.inference.edit_sampler import EditSampler
from clora.inference.session import ModelSession
from clora.planning.cost import _EmptySteps
from clora.planning.plan import make_plan
from clora.planning.shift import few_steps, shift_of, student_shift, told
from clora.plugin_system.discovery import discover
from clora.testing import example_step
from clora.training.batches import Batches, Targets
from clora.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
SETS = ["effects=[duotone_ocean, thermal]"]
#: mu = 0.5 at 256 tokens, 0.9 at 8192, as the published Qwen-Image has it
LINE = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192}


@frozen
class Sized:
    """A dataset that states a size, or None."""

    size: tuple[int, int] | None

    def stated_size(self) -> tuple[int, int] | None:
        return self.size


@frozen
class Ruled:
    """A backbone that answers with what it was given, or raises it."""

    answer: Any

    def shift_for(self, size: tuple[int, int] | None) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@frozen
class BySize:
    """A backbone whose rule is a thousandth of the pictures' pixels."""

    def shift_for(self, size: tuple[int, int] | None) -> TokenShift | None:
        return None if size is None else TokenShift(size[0] * size[1] / 1000, f"{size[0]} x {size[1]}")


def loaded(*sets: str) -> LoadedRecipe:
    return load_recipe(ROOT / "recipes/quickstart.yaml", (), [*SETS, *sets], discover())


def test_a_number_in_the_recipe_is_taken_whatever_the_rule() -> None:
    assert shift_of(Student(shift=2.5), BySize(), Sized((10, 10))).shift == 2.5
    assert shift_of(Student(shift=2.5), Ruled(RuntimeError()), None).shift == 2.5


def test_a_backbone_without_a_rule_takes_the_papers_three() -> None:
    assert not isinstance(object(), ShiftsByTokens)
    assert shift_of(Student(), object(), Sized((10, 10))).shift == 3.0


def test_the_rule_is_asked_with_the_size_that_the_dataset_states() -> None:
    assert shift_of(Student(), BySize(), Sized((20, 100))) == TokenShift(2.0, "20 x 100")


@pytest.mark.parametrize(
    ("backbone", "dataset", "sentence"),
    [
        (BySize(), Sized(None), "which the dataset does not state: give dataset.size, or a number here, such as 3"),
        (BySize(), object(), "which this dataset has no way to state: give a number here, such as 3"),
        (BySize(), Sized((1, 1)), "gives, 0.001 (1 x 1), which must be between 0.01 and 100: give a number here"),
        (BySize(), Sized((8000, 8000)), "gives, 64000 (8000 x 8000), which must be between 0.01 and 100"),
        (Ruled(TokenShift(math.nan, "so")), Sized(None), "gives, nan (so), which must be between 0.01 and 100"),
        (Ruled(TokenShift(math.inf, "so")), Sized(None), "gives, inf (so), which must be between 0.01 and 100"),
        (Ruled(2.0), Sized(None), "the backbone's shift_for must give a TokenShift or None, not 'float'"),
        (Ruled(CloraError("x.json is broken")), Sized(None), "rule gives: x.json is broken; or give a number here"),
        (Ruled(KeyError("A" * 999)), Sized(None), "backbone's shift_for raised KeyError: "),
        (BySize(), Sized(7), "stated_size and the backbone's shift_for raised TypeError: "),
    ],
)
def test_no_shift_is_told_with_what_to_give(backbone: Any, dataset: Any, sentence: str) -> None:
    with pytest.raises(CloraError) as caught:
        shift_of(Student(), backbone, dataset)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("tokens", [1, 12, 256, 1024, 4096, 4097, 16_384])
@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_the_papers_shift_moves_as_the_schedulers_own(tokens: int, kind: str) -> None:
    found = shift_by_tokens({**LINE, "time_shift_type": kind}, tokens, "x")
    mu, papers = (0.5 + 0.4 * (count - 256) / (8192 - 256) for count in (tokens, 4096))
    expected = 3 * (mu / papers if kind == "linear" else math.exp(mu) / math.exp(papers))
    assert found is not None
    assert found.shift == pytest.approx(expected, rel=1e-12)
    assert (found.shift > 3) == (tokens > 4096)


def test_what_a_configuration_leaves_out_is_the_pipelines_default() -> None:
    found = shift_by_tokens({"use_dynamic_shifting": True}, 1024, "x")
    assert found is not None
    assert found.shift == pytest.approx(3 * math.exp((1024 - 4096) * 0.65 / 3840), rel=1e-12)


def test_a_scheduler_that_does_not_follow_the_tokens_needs_no_size() -> None:
    for config in ({**LINE, "use_dynamic_shifting": False}, {}):
        found = shift_by_tokens(config, None, "x")
        assert found is not None
        assert found.shift == 3.0
    assert shift_by_tokens(LINE, None, "x") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"base_shift": -20.0, "max_shift": 20.0, "max_image_seq_len": 257},
        {"base_shift": 20.0, "max_shift": -20.0, "max_image_seq_len": 257},
        {"time_shift_type": "linear", "base_shift": -1.0},
        {"base_image_seq_len": 8192},
    ],
)
def test_a_scheduler_that_gives_no_number_is_told(fields: dict[str, Any]) -> None:
    with pytest.raises(CloraError, match=r"^where: "):
        shift_by_tokens({**LINE, **fields}, 12, "where")


def test_the_emoji_world_takes_its_measured_one() -> None:
    plan = make_plan(loaded(), thorough=False)
    assert loaded().recipe.student.shift is None
    assert plan.recipe.student.shift == student_shift(loaded().recipe) == 1.0
    assert plan.schedule == "shift 1 (64 tokens: measured for the emoji model), 4 levels: 1000 750 500 250"
    papers = make_plan(load_recipe(ROOT / "recipes/as_the_paper.yaml", (), (), discover()), thorough=False)
    assert papers.recipe.student.shift == 3.0


def test_a_run_keeps_the_number_and_the_same_number_is_the_same_run(tmp_path: Path) -> None:
    plan, given, other = (
        make_plan(loaded(*sets), thorough=False) for sets in ((), ("student.shift=1",), ("student.shift=3",))
    )
    assert "shift: 1.0" in plan.text
    assert plan.digest == given.digest != other.digest
    (tmp_path / "recipe.yaml").write_text(plan.text)
    again = make_plan(load_recipe(tmp_path / "recipe.yaml", (), (), discover()), thorough=False)
    assert again.recipe.student.shift == 1.0
    assert again.digest == plan.digest


@pytest.fixture(scope="module")
def session() -> ModelSession:
    return ModelSession(make_plan(loaded(), thorough=False))


@pytest.mark.parametrize("number", [None, 0.5, 2.5])
def test_everything_reads_the_same_shift(
    session: ModelSession, number: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(loaded(*([] if number is None else [f"student.shift={number}"])), thorough=False)
    shift = 1.0 if number is None else number
    levels = [shift * u / (1 + (shift - 1) * u) for u in (1.0, 0.75, 0.5, 0.25)]

    trainer = Trainer(plan.recipe, None, None, None, None)  # pyright: ignore[reportArgumentType]
    assert trainer.schedule.sigmas == pytest.approx(levels)
    source = plan.recipe.dataset.sources("thermal", "train")[0]
    targets = Targets(
        dict.fromkeys(plan.mix, (source,)), lambda effect, name: torch.zeros(48, 8, 8), torch.device("cpu")
    )
    drawn = Batches(plan, session, targets).context(StepRng(0), "student", trainer.schedule)
    counted = _EmptySteps(plan, 2).context(StepRng(0), "student", trainer.schedule)
    assert (drawn.shift, counted.shift) == (shift, shift)

    seen: list[Schedule] = []

    def sampled(velocity: Any, like: torch.Tensor, schedule: Schedule, rng: Any) -> torch.Tensor:
        seen.append(schedule)
        return torch.zeros_like(like)

    monkeypatch.setattr(serving, "few_step", sampled)
    EditSampler(plan, session).few_step(None, ["make it red"], [source], StepRng(0))
    assert seen == [trainer.schedule]

    lora = plan.exported(tmp_path / "lora.safetensors")
    header = lora.header
    how = json.loads(header["clora"])
    assert (how["shift"], how["sigmas"]) == (shift, pytest.approx(levels))
    assert header["modelspec.usage_hint"].endswith(f"shift {shift:g}")
    files = plan.recipe.exporters["bundle"].export(lora)
    assert json.loads(files["scheduler/scheduler_config.json"])["shift"] == shift


@pytest.mark.parametrize("number", [None, 3.0])
def test_the_bounds_move_with_the_shift(number: float | None) -> None:
    """tau_min 500 is u = 0.25 and tau_max 750 is u = 0.5 of the paper's schedule."""
    recipe = make_plan(loaded(*([] if number is None else [f"student.shift={number}"])), thorough=False).recipe
    shift = student_shift(recipe)
    step = example_step([Row("effect", "thermal")] * 20_000, torch.zeros(20_000, 1, 1, 1), shift=shift)
    least = float(recipe.losses["ts_dmd"].sigmas(step).min())
    assert least == pytest.approx(shift * 0.25 / (1 + (shift - 1) * 0.25), abs=1e-3)
    steps = recipe.simulations["target"].levels(few_steps(recipe))
    assert steps == pytest.approx([shift * 0.25 / (1 + (shift - 1) * 0.25)])


def test_the_emoji_teachers_sample_at_the_models_own_levels(session: ModelSession) -> None:
    plan = make_plan(loaded("teacher.shift=null"), thorough=False)
    server = EditSampler(plan, session)
    schedule = server._teacher_schedule(torch.empty(2, 48, 8, 8))
    assert schedule.sigmas == pytest.approx([1 - i / 20 for i in range(20)])
    assert EditSampler(make_plan(loaded(), thorough=False), session)._teacher_schedule(
        torch.empty(2, 48, 8, 8)
    ) == Schedule.shifted(20, 3.0)


def test_a_schedule_is_told_in_one_line() -> None:
    assert told(TokenShift(3.0, "so"), 1) == "shift 3 (so), 1 level: 1000"
    long = told(TokenShift(3.0, "so"), 1000)
    assert long.startswith("shift 3 (so), 1000 levels: 1000 999.7 ")
    assert long.endswith(" ... 2.994")
    assert len(long) < 120


@pytest.mark.slow
def test_show_and_validate_tell_the_shift_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(ROOT / "recipes/quickstart.yaml")
    line = "shift 1 (64 tokens: measured for the emoji model), 4 levels: 1000 750 500 250\n"
    assert main(["show", file]) == 0
    assert f"# schedule: {line}" in capsys.readouterr().out
    assert main(["validate", file]) == 0
    assert f"schedule        {line}" in capsys.readouterr().out
    assert main(["validate", file, "--set", "student.shift=3"]) == 0
    assert "shift 3 (the recipe's own), 4 levels: 1000 900 750 500\n" in capsys.readouterr().out


def test_a_plan_whose_simulation_does_not_fit_is_refused_where_the_load_could_not_know() -> None:
    """The shift of a model that is downloaded by the checks is known to the plan alone."""
    good = loaded()
    bad = evolve(good.recipe.simulations["target"], tau_max=0.2)
    recipe = evolve(good.recipe, simulations={**good.recipe.simulations, "target": bad})
    with pytest.raises(CloraError, match=r"simulations\.target: tau_max 0\.2 .*leaves no level"):
        make_plan(evolve(good, recipe=recipe), thorough=False)

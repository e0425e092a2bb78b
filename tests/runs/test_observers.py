"""Observers of a recipe: what they are given, that no number changes by them, and what happens where one fails."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from distribution import write_distribution
from emoji_in_parts import in_parts
from safetensors.torch import load_file
from two_effects import RECIPE, TwoEffects

from clora import cli
from clora.config.problems import RecipeError
from clora.inference.session import ModelSession, read_adapter
from clora.inference.student_samples import StudentSamples
from clora.plugin_system.discovery import discover
from clora.runs.job import Job
from clora.runs.pipeline import Pipeline
from clora.runs.progress import Progress
from clora.runs.run_dir import RunDir
from clora.training.distributed import Distributed

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

SOURCE = """
import torch
from attrs import frozen
from clora.api import Component, SampleRequest, hookimpl

SEEN = []


@frozen
class Notes:
    every: int = 1
    effects: tuple[str, ...] = ("thermal",)
    pictures: int = 1

    def sample_request(self, effects):
        return SampleRequest(self.effects, self.pictures)

    def observe(self, seen):
        SEEN.append(seen)
        (seen.folder / "seen.txt").write_text(f"{seen.report.step}")


@frozen
class Disturbs(Notes):
    def observe(self, seen):
        torch.manual_seed(7)
        torch.rand(3)
        for samples in seen.samples:
            samples.student.zero_()
            samples.source.zero_()
        seen.report.losses.clear()


@frozen
class Fails:
    how: str = "observe"
    every: int = 1

    def sample_request(self, effects):
        if self.how == "request":
            raise LookupError("which effects?")
        return {"nothing": None, "text": SampleRequest("thermal")}.get(self.how, SampleRequest(()))

    def observe(self, seen):
        if self.how == "exits":
            raise SystemExit(3)
        if self.how == "folder":
            open(seen.folder / "a" / "b", "w")
        raise ValueError("no paper left")


@frozen
class NoMethod:
    every: int = 1


@frozen
class NoEvery:
    def observe(self, seen):
        pass


@frozen
class Misspelt:
    every: int = 1

    def sample_requests(self, effects):
        return SampleRequest(effects)

    def observe(self, seen):
        pass


@hookimpl
def clora_observers():
    return [Component(c.__name__, c) for c in (Notes, Disturbs, Fails, NoMethod, NoEvery, Misspelt)]
"""
SMALL = TwoEffects(("warm_start=null", "train.steps=3"))
NOTED = ("observers.notes={use: Notes, every: 2, pictures: 2}", "student.ema=null")


@pytest.fixture(scope="module")
def watchers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list]:
    """A distribution of observers beside the real ones; the list of what `Notes` was given."""
    site = tmp_path_factory.mktemp("site")
    (site / "watching_parts.py").write_text(SOURCE)
    write_distribution(site, "watching", {"watching": "watching_parts"}, "0.4")
    sys.path.insert(0, str(site))
    import watching_parts

    yield watching_parts.SEEN
    sys.path.remove(str(site))
    sys.modules.pop("watching_parts")


@pytest.fixture(scope="module")
def plain(watchers: list, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run that nothing observes."""
    return SMALL.run(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def noted(watchers: list, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, list]:
    """A run and what was given to an observer of it that asks for pictures after every second update."""
    watchers.clear()
    run = SMALL.run(tmp_path_factory.mktemp("noted") / "run", *NOTED)
    return run, list(watchers)


@pytest.fixture(autouse=True)
def _nothing_seen(watchers: list) -> None:
    watchers.clear()


def losses(folder: RunDir) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in folder.steps.read_text().splitlines()]


def check_same(ours: RunDir, theirs: RunDir) -> None:
    """Losses and weights are the same to the last bit."""
    assert len(losses(ours)) == 3
    assert losses(ours) == losses(theirs)
    mine, other = load_file(ours.lora), load_file(theirs.lora)
    assert mine.keys() == other.keys()
    assert all(mine[name].equal(other[name]) for name in mine)


def test_no_number_changes_by_observers_that_are_given_pictures(plain: RunDir, watchers: list, tmp_path: Path) -> None:
    sets = ("observers.all={use: Notes, effects: [duotone_ocean, thermal], pictures: 2}", "observers.rude=Disturbs")
    check_same(SMALL.run(tmp_path / "run", *sets), plain)
    assert [seen.report.step for seen in watchers] == [1, 2, 3]


def test_an_observer_is_given_run_plan_report_and_pictures(noted: tuple[RunDir, list]) -> None:
    made, given = noted
    assert [seen.report.step for seen in given] == [2, 3]  # every second one, and the last
    seen = given[0]
    assert (seen.run.folder, seen.run.steps) == (made.path, 3)
    assert seen.plan.effects == ("duotone_ocean", "thermal")
    assert seen.plan.prompts["thermal"].student
    assert seen.plan.recipe == made.recipe.read_text()
    assert seen.report.losses == losses(made)[1]
    assert seen.folder == made.path / "observers/notes"
    assert (seen.folder / "seen.txt").read_text() == "3"
    (samples,) = seen.samples
    assert (samples.effect, len(samples.names)) == ("thermal", 2)
    assert samples.student.shape == samples.source.shape
    assert samples.student.shape[:2] == (2, 3)
    assert samples.student.min() >= -1
    assert samples.student.max() <= 1
    later = given[1].samples[0]
    assert later.source.equal(samples.source)
    assert not later.student.equal(samples.student)  # the student has moved, the noise has not


def test_pictures_are_the_students_own_from_the_same_noise(noted: tuple[RunDir, list]) -> None:
    made, given = noted
    plan = SMALL.plan(*NOTED)
    session = ModelSession(plan)
    session.adapted.add("student", read_adapter(session, made.lora))
    again = StudentSamples(plan, session).make(plan.samples["notes"])
    assert again[0].student.equal(given[-1].samples[0].student)


def test_a_backbone_in_parts_makes_pictures_and_trains_the_same(watchers: list, tmp_path: Path) -> None:
    def trained(name: str, *sets: str) -> RunDir:
        plan, owner = in_parts(SMALL.plan(*sets))
        folder = RunDir(tmp_path / name / "run")
        Pipeline(Job(plan, folder), discover(), Distributed(), Progress(on=False)).run(until_export=True)
        assert not any({"text", "network"} <= parts for _, parts in owner.together)
        return folder

    with_pictures = trained("watched", "observers.notes={use: Notes, pictures: 3}")
    assert [len(seen.samples[0].student) for seen in watchers] == [3, 3, 3]
    check_same(with_pictures, trained("plain"))


def test_observers_belong_to_no_digest_and_are_told_of_a_run_that_goes_on(watchers: list, tmp_path: Path) -> None:
    plan = SMALL.plan()
    changed = ("observers.notes={use: Notes, every: 3}", "observers.two=Notes", "observers.two={use: Notes, every: 9}")
    assert {SMALL.plan(text).digest for text in changed} == {plan.digest}
    warm = TwoEffects(("warm_start.updates=2",))
    assert {warm.plan(text).warm for text in changed} == {warm.plan().warm}
    run = SMALL.run(tmp_path / "run")
    lora = run.lora.stat().st_mtime_ns
    SMALL.run(run.path, "observers.notes=Notes")
    assert not watchers  # nothing was left to train
    assert run.lora.stat().st_mtime_ns == lora
    run.forget("export")
    for step in (2, 3):
        (run.path / f"checkpoints/{step:06}").rename(run.path / f"{step}")
    SMALL.run(run.path, "observers.notes=Notes")
    assert [seen.report.step for seen in watchers] == [2, 3]  # from the checkpoint of update 1 on
    assert "watching 0.4" in run.info().components["observers.notes"]


def test_an_observer_that_fails_is_one_warning_and_training_is_untouched(
    plain: RunDir, watchers: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentences = {
        "observe": r"ValueError: no paper left at watching_parts\.py:\d+",
        "exits": r"SystemExit: 3 at watching_parts\.py:\d+",
        "folder": r"FileNotFoundError: .* at watching_parts\.py:\d+",
        "taken": "FileExistsError: .*",
    }
    (tmp_path / "run/observers").mkdir(parents=True)
    (tmp_path / "run/observers/taken").write_text("mine")
    sets = [f"observers.{how}={{use: Fails, how: {how}}}" for how in sentences]
    run = SMALL.run(tmp_path / "run", *sets, "observers.notes=Notes")
    told = [line for line in capsys.readouterr().err.splitlines() if "observers." in line]
    assert len(told) == 4
    for line, (how, sentence) in zip(told, sentences.items(), strict=True):
        place = rf"observers\.{how} \(Fails of watching 0\.4, --set \S+\)"
        assert re.fullmatch(f"warning: {place}: {sentence}; it observes no more of this run", line)
    assert [seen.report.step for seen in watchers] == [1, 2, 3]  # the others go on
    assert (tmp_path / "run/observers/taken").read_text() == "mine"
    check_same(run, plain)


def test_pictures_that_cannot_be_made_are_a_warning(plain: RunDir, tmp_path: Path, monkeypatch, capsys) -> None:
    def full(self, request):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(StudentSamples, "make", full)
    check_same(SMALL.run(tmp_path / "run", "observers.notes=Notes"), plain)
    told = [line for line in capsys.readouterr().err.splitlines() if "observers." in line]
    assert len(told) == 1
    assert "its pictures could not be made: OutOfMemoryError: out of memory; it observes no more" in told[0]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("observers.sheet={use: previews, evry: 5}", "unknown key 'evry' in observers.sheet; did you mean 'every'?"),
        ("observers.sheet={use: preview}", "observers has no component 'preview'; did you mean 'previews'?"),
        ("observers.sheet={use: previews, every: 0}", "observers.sheet.every must be between 1 and 1,000,000, found 0"),
        ("observers.sheet={use: previews, every: often}", "observers.sheet.every"),
        ("observers.n={use: Notes, every: 0}", "observers.n.every: must be a whole number of updates, at least 1, fou"),
        (
            "observers.sheet={use: previews, effects: [termal]}",
            "is no effect of this run; did you mean 'thermal'",
        ),
        ("observers.sheet={use: previews, effects: []}", "effects names none; leave it out for the first four"),
        ("observers.sheet={use: previews, effects: [thermal, thermal]}", "effects names 'thermal' twice"),
        ("observers.n={use: Notes, pictures: 65}", "its sample_request raised ValueError: 'pictures' must be between"),
        ("observers.bad={use: Fails, how: request}", "its sample_request raised LookupError: which effects? at watch"),
        ("observers.bad={use: Fails, how: nothing}", "its sample_request gave None; expected a SampleRequest"),
        ("observers.bad={use: Fails, how: text}", "it asks for pictures of str 'thermal'; expected a tuple of effects"),
        ("observers.bad=NoMethod", "'NoMethod' is no Observer: it has no observe"),
        ("observers.bad=NoEvery", "'NoEvery' is no Observer: it has no every"),
        ("observers=previews", "observers: expected a mapping of name"),
        ("observers={a/b: previews}", "'a/b' in observers is no name"),
    ],
)
def test_what_is_wrong_with_an_observer_is_told_before_the_run(setting: str, sentence: str, capsys) -> None:
    words = [part for text in (*SMALL.words, setting) for part in ("--set", text)]
    assert cli.main(["validate", str(RECIPE), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_pictures_are_refused_where_processes_share_one_base() -> None:
    with pytest.raises(RecipeError, match="not made where processes share one base"):
        SMALL.plan("train.shard_base=true", "observers.sheet=previews")
    SMALL.plan("train.shard_base=true", "observers.quiet={use: Fails, how: none}")  # it asks for none


def test_too_many_pictures_at_a_time_are_refused() -> None:
    names = ", ".join(["thermal"] * 5)
    with pytest.raises(RecipeError, match=r"asks for 320 pictures at a time \(5 effects\); at most 256"):
        SMALL.plan(f"observers.notes={{use: Notes, pictures: 64, effects: [{names}]}}")


def test_a_misspelt_ability_is_doubtful() -> None:
    (told,) = [line for line in SMALL.plan("observers.notes=Misspelt").warnings if "Misspelt" in line]
    assert "observers.notes: nobody calls the method 'sample_requests' of 'Misspelt'; did you mean 'sample_requ" in told

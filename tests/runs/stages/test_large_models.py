"""A model in parts: they never meet, and what is encoded is kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from emoji_in_parts import EFFECTS, in_parts, plan_of, prepared
from safetensors.torch import load_file

from clora.diffusion.flow import Schedule
from clora.diffusion.rng import StepRng
from clora.errors import CloraError
from clora.inference.session import ModelSession
from clora.planning.plan import Plan
from clora.plugin_system.discovery import discover
from clora.runs.job import Job
from clora.runs.pipeline import Pipeline
from clora.runs.progress import Progress
from clora.runs.run_dir import RunDir
from clora.runs.stages import conditions
from clora.training.batches import Batches
from clora.training.distributed import Distributed
from clora.training.start import make_state


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of()


def run_whole(plan: Plan, runs: Path) -> RunDir:
    return Pipeline(Job(plan, RunDir(runs / "run")), discover(), Distributed(), Progress(on=False)).run()


@pytest.mark.slow
def test_parts_of_a_large_model_never_meet_and_the_outcome_is_that_of_a_small_one(plan: Plan, tmp_path: Path) -> None:
    large, backbone = in_parts(plan)
    run = run_whole(large, tmp_path / "large")
    at_once = {there for _, there in backbone.together}
    assert not any({"text", "network"} <= there for there in at_once)
    order = [what for i, (what, _) in enumerate(backbone.together) if i == 0 or backbone.together[i - 1][0] != what]
    # encoded, teachers sampled, previews decoded; then trained, and only evaluation decodes again
    assert order[:6] == ["encode", "network", "velocity", "decode", "network", "velocity"]
    trained = backbone.together[next(i for i, (what, _) in enumerate(backbone.together) if what == "decode") :]
    trained = trained[next(i for i, (what, _) in enumerate(trained) if what == "network") :]
    until = next(i for i, (what, _) in enumerate(trained) if what == "decode")
    assert {there for _, there in trained[:until]} == {frozenset({"network"})}
    previews = next(there for what, there in backbone.together if what == "decode")
    assert previews == {"pictures"}

    plain = run_whole(plan, tmp_path / "plain")
    ours, theirs = load_file(run.lora), load_file(plain.lora)
    assert all(ours[key].equal(theirs[key]) for key in theirs)
    assert run.results.read_text() == plain.results.read_text()
    pictures = [load_file(folder.pictures) for folder in (run, plain)]
    assert all(pictures[0][key].equal(pictures[1][key]) for key in pictures[1])


def test_training_and_evaluation_of_a_large_model_load_no_encoder_again(plan: Plan, tmp_path: Path) -> None:
    large, backbone = in_parts(plan)
    prepared(large, tmp_path)
    backbone.together.clear()
    session, made = prepared(large, tmp_path)  # all of it is there
    assert not backbone.together
    batches = Batches(large, session, made)
    for step in range(6):
        batches.context(StepRng(step), "student", Schedule.shifted(3, 3.0))
    assert not backbone.together


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_a_damaged_file_of_conditions_is_encoded_again(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(conditions, "FILE_BYTES", 100_000)  # several files
    large, backbone = in_parts(plan)
    prepared(large, tmp_path)
    files = sorted((tmp_path / ".cache/conditions").rglob("*.safetensors"))
    assert len(files) > 2
    raw = files[1].read_bytes()
    if harm == "delete":
        files[1].unlink()
    else:
        files[1].write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]) if harm == "flip" else raw[:-20])
    capsys.readouterr()
    backbone.together.clear()
    session, _ = prepared(large, tmp_path)
    assert {what for what, _ in backbone.together} == {"encode"}
    assert capsys.readouterr().err.count("is damaged (") == (harm != "delete")
    names, prompts = plan.sources(EFFECTS[0]), [plan.prompts[EFFECTS[0]].student] * 5
    ours, theirs = (w.conditioning.conditions(prompts, names) for w in (session, ModelSession(plan)))
    assert ours.text.equal(theirs.text)
    assert ours.mask.equal(theirs.mask)
    assert ours.source.equal(theirs.source)


def test_a_condition_lost_while_training_is_told_and_no_encoder_joins_the_transformer(
    plan: Plan, tmp_path: Path
) -> None:
    large, _ = in_parts(plan)
    prepared(large, tmp_path)
    session, made = prepared(large, tmp_path)  # nothing is in memory from encoding
    make_state(large, session, Distributed())
    for path in (tmp_path / ".cache/conditions").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(CloraError, match="the same command encodes it again"):
        Batches(large, session, made).context(StepRng(0), "student", Schedule.shifted(3, 3.0))


def test_a_disk_too_small_for_the_conditions_is_told_before_they_fill_it(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    large, _ = in_parts(plan)
    with pytest.raises(CloraError, match=r"take about .* GiB free.*prepare\.general_images"):
        prepared(large, tmp_path)
    assert not list((tmp_path / ".cache").rglob("*.safetensors"))

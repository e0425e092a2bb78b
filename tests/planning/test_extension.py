"""Adding effects to a finished LoRA: the mix of old and new, where training starts, and which effects got worse."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from attrs import evolve
from in_process import clora
from safetensors.torch import load_file
from shallow_emoji import shallow_emoji, shallow_folder

from clora.adapters.adapter import Adapter
from clora.config.schema import Start, Train
from clora.contracts.evaluation import Quantity
from clora.diffusion.rng import StepRng
from clora.errors import CloraError
from clora.lora_io.header import LoraFileError
from clora.planning.extension import begin, mixed
from clora.runs.files.results import Results
from clora.runs.regression import as_text, changes
from clora.training.checkpoint import Checkpoints, State
from clora.training.distributed import Distributed
from clora.training.optimizer import MovingAverage, TrainableAdapter

ROOT = Path(__file__).parents[2]
BANK = shallow_folder() / "teachers"
SHAPES = {"one": (5, 3), "two": (4, 6)}


@pytest.mark.parametrize(("old", "new", "replay"), [(50, 4, 0.5), (3, 1, 0.25), (2, 5, 0.7), (1, 1, 1 / 3)])
def test_replay_is_the_share_of_draws_that_fall_on_old_effects(old: int, new: int, replay: float) -> None:
    known = [f"old{i}" for i in range(old)]
    drawn = Counter(mixed([*known, *(f"new{i}" for i in range(new))], known, replay))
    assert len(drawn) == old + new
    total = sum(drawn.values())
    assert sum(drawn[name] for name in known) / total == pytest.approx(replay, abs=0.01)
    assert len({drawn[name] for name in known}) == 1  # evenly among the old
    assert len({count for name, count in drawn.items() if name not in known}) == 1


def test_no_replay_and_replay_alone() -> None:
    assert mixed(["a", "b", "c"], ["a"], 0.0) == ("b", "c")
    assert mixed(["a", "b", "c"], ["a"], 1.0) == ("a",)
    assert mixed(["a", "b"], [], 0.5) == ("a", "b")


def fresh(rank: int, alpha: float) -> State:
    adapter = Adapter.fresh(SHAPES, rank, alpha, StepRng(1))
    student = TrainableAdapter(adapter, 1e-3, Train(), Distributed())
    critic = TrainableAdapter(Adapter.fresh(SHAPES, rank, alpha, StepRng(2)), 1e-3, Train(), Distributed())
    return State(student, critic, MovingAverage(adapter, 0.9))


def finished(rank: int, scale: float) -> tuple[Adapter, dict[str, torch.Tensor]]:
    """A finished LoRA on one of the two linears, and its change of weight in float64."""
    random = torch.Generator().manual_seed(5)
    a, b = torch.randn(rank, 5, generator=random), torch.randn(3, rank, generator=random)
    return Adapter.of({"one": (a, b, scale)}), {"one": scale * (b.double() @ a.double())}


@pytest.mark.parametrize("rank", [3, 7])
def test_training_starts_from_the_finished_change(rank: int, tmp_path: Path) -> None:
    state = fresh(rank, alpha=2.0)
    drawn = state.student.adapter.factors["one"][0].detach().clone()
    adapter, expected = finished(3, 0.5)
    begin(state, adapter, Start(run=tmp_path))
    assert state.average is not None
    for made in (state.student.adapter, state.average.adapter):
        a, b, scale = made.factors["one"]
        assert torch.allclose(scale * (b.detach().double() @ a.detach().double()), expected["one"], atol=1e-6)
        a, b, scale = made.factors["two"]  # the finished LoRA leaves it alone
        assert not b.any()
    assert torch.equal(state.student.adapter.factors["one"][0][3:], drawn[3:])  # what a higher rank adds can learn


def test_the_finished_runs_critic_goes_on(tmp_path: Path) -> None:
    state = fresh(3, alpha=3.0)
    assert state.critic is not None
    kept = torch.randn(state.critic.adapter.flat.shape)
    checkpoints = Checkpoints(tmp_path / "checkpoints", "digest", keep=3)
    for step, flat in ((10, torch.zeros_like(kept)), (20, kept), (30, torch.ones_like(kept))):
        before = fresh(3, alpha=3.0)
        assert before.critic is not None
        before.critic.adapter.flat.copy_(flat)
        last = checkpoints.save(step, before) / "state.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    begin(state, finished(3, 1.0)[0], Start(run=tmp_path))
    assert torch.equal(state.critic.adapter.flat, kept)  # the newest that is whole


def test_more_rank_than_the_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoraFileError, match="rank 3 at one"):
        begin(fresh(2, 2.0), finished(3, 1.0)[0], Start(run=tmp_path))


def results(**effects: list[float]) -> Results:
    return Results(
        quantities={"distance": Quantity("lower"), "consistency": Quantity("higher"), "colour": Quantity()},
        per_picture={
            name: {"distance": tuple(v), "consistency": tuple(-x for x in v), "colour": v}
            for name, v in effects.items()
        },
        pictures={name: tuple(f"p{i}" for i in range(len(v))) for name, v in effects.items()},
    )


def test_worse_is_beyond_chance_and_not_small() -> None:
    before = results(steady=[0.1, 0.2, 0.3, 0.4], noisy=[0.1, 0.2, 0.3, 0.4], gone=[0.1] * 4, better=[0.4] * 4)
    after = results(steady=[0.101, 0.201, 0.301, 0.401], noisy=[0.9, 0.1, 0.3, 0.2], gone=[0.5] * 4, better=[0.1] * 4)
    found = {(c.effect, c.metric): c for c in changes(before, after)}
    assert [key for key, change in found.items() if change.worse] == [("gone", "distance"), ("gone", "consistency")]
    noisy = found["noisy", "distance"]
    differences = [0.8, -0.1, 0.0, -0.2]
    assert noisy.worsening == pytest.approx(statistics.mean(differences))
    assert noisy.standard_error == pytest.approx(statistics.stdev(differences) / 4**0.5)
    assert "got worse: gone" in as_text(list(found.values()))


def test_of_one_picture_there_is_no_chance_to_know() -> None:
    found = changes(results(ink=[0.1]), results(ink=[0.2]))
    assert [(change.standard_error, change.worse) for change in found] == [(None, True), (None, True)]
    assert "± ?" in as_text(found)
    assert "one test picture alone" in as_text(found)


def test_other_pictures_and_missing_numbers_are_told() -> None:
    before, after = results(ink=[0.1, 0.2]), results(ink=[0.1, 0.2])
    after = evolve(after, pictures={"ink": ("p0", "another")})
    with pytest.raises(CloraError, match="ink was evaluated on other test pictures"):
        changes(before, after)
    with pytest.raises(CloraError, match="no metric has given a number for each picture"):
        changes(Results(), after)


SMALL = {
    "effects": "[duotone_ocean, thermal]",
    "student.rank": "4",
    "student.steps": "3",
    "train.steps": "2",
    "warm_start.updates": "1",
    "train.batch_size": "4",
    "teacher.steps": "2",
    "prepare": "{previews: 0, train_images: 3, general_images: 4}",
    "evaluate": "{images: 3, general_images: 2}",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two effects."""
    folder = tmp_path_factory.mktemp("first") / "run"
    lines = [*shallow_emoji(), *(f"{key}={value}" for key, value in SMALL.items())]
    sets = [word for line in lines for word in ("--set", line)]
    made = clora("run", str(ROOT / "recipes/quickstart.yaml"), "--run-dir", str(folder), *sets)
    assert made.returncode == 0, made.stderr
    return folder


def bank(folder: Path, *names: str) -> Path:
    """A manifest of some of the emoji world's teachers."""
    folder.mkdir()
    entries = [entry for entry in yaml.safe_load((BANK / "bank.yaml").read_text()) if entry["name"] in names]
    for entry in entries:
        (folder / entry["lora"]).write_bytes((BANK / entry["lora"]).read_bytes())
    (folder / "bank.yaml").write_text(yaml.safe_dump(entries))
    return folder / "bank.yaml"


@pytest.mark.slow
def test_a_run_is_extended_twice(run: Path, tmp_path: Path) -> None:
    first = clora(
        "extend", str(run), "--bank", str(bank(tmp_path / "more", "neon_edges")), "--updates-each", "2",
        "--run-dir", str(tmp_path / "first"),
    )  # fmt: skip
    assert first.returncode in (0, 1), first.stderr  # two updates may well make an effect worse
    assert ("got worse: " in first.stdout) == (first.returncode == 1)
    assert {"duotone_ocean", "thermal"} <= set(first.stdout.split())
    how = json.loads((tmp_path / "first/run.json").read_text())
    assert how["steps"] == 2
    old, new = (load_file(folder / "export/lora.safetensors") for folder in (run, tmp_path / "first"))
    moved = sum(float((old[name] - new[name]).square().sum()) for name in old) ** 0.5
    size = sum(float(old[name].square().sum()) for name in old) ** 0.5
    assert 0 < moved < 0.5 * size  # it went on from the finished LoRA
    again = clora(
        "extend", str(tmp_path / "first"), "--bank", str(bank(tmp_path / "most", "gold_frame")), "--updates-each", "1",
        "--run-dir", str(tmp_path / "second"), "--replay", "0.75",
    )  # fmt: skip
    assert again.returncode in (0, 1), again.stderr
    effects = json.loads((tmp_path / "second/evaluate/results.json").read_text())["per_effect"]
    assert list(effects) == ["duotone_ocean", "thermal", "neon_edges", "gold_frame"]


@pytest.mark.slow
def test_what_cannot_be_extended_is_told_before_anything_is_loaded(run: Path, tmp_path: Path) -> None:
    same = clora("extend", str(run), "--bank", str(bank(tmp_path / "same", "thermal")))
    assert same.returncode == 2
    assert "thermal is in the finished LoRA already" in same.stderr
    reworded = clora("extend", str(run), "--bank", str(bank(tmp_path / "new", "neon_edges")), "--set", "prompts.seed=1")
    assert reworded.returncode == 2
    assert "its words must stay" in reworded.stderr
    nowhere = clora("extend", str(tmp_path / "nothing"), "--bank", str(BANK / "bank.yaml"))
    assert nowhere.returncode == 2
    assert "not a run folder" in nowhere.stderr
    missing = clora("extend", str(run), "--bank", str(tmp_path / "bank.yml"))
    assert missing.returncode == 2
    assert "there is no such manifest" in missing.stderr
    for told in (same, reworded, nowhere, missing):
        assert "Traceback" not in told.stderr

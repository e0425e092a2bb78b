"""Runs beside one another that begin the same way train their warm start once, and share nothing that differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shallow_emoji import shallow_folder
from two_effects import TwoEffects

from clora.runs.run_dir import RunDir
from clora.runs.stages.warm_start import KEPT
from clora.training.warm_start import warm_folder, was_taken

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

SMALL = TwoEffects(("train.steps=1",))
plan_of, carried_out = SMALL.plan, SMALL.run


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that has trained its warm start."""
    return carried_out(tmp_path_factory.mktemp("shared") / "first")


@pytest.fixture
def beside(first: RunDir, tmp_path: Path) -> Path:
    """A folder of runs with the first one's cache."""
    shutil.copytree(first.cache, tmp_path / ".cache")
    return tmp_path


def test_a_run_that_differs_later_takes_it_and_ends_as_if_it_had_trained_it(first, beside, tmp_path_factory, capsys):
    other = ("losses.ta_fm.weight=3", "student.ema=0.5", "critic.lr=1e-4")
    taken = carried_out(beside / "taken", *other, until_export=False, telling=True)
    assert "warm start: its 2 updates were made by a run beside this one" in capsys.readouterr().err
    own = carried_out(tmp_path_factory.mktemp("alone") / "own", *other)
    assert was_taken(taken.path)
    assert not was_taken(own.path)
    assert taken.lora.read_bytes() == own.lora.read_bytes()
    ours, theirs, log = warm_folder(taken.path), warm_folder(own.path), warm_folder(first.path) / "steps.jsonl"
    assert (ours / "lora.safetensors").read_bytes() == (theirs / "lora.safetensors").read_bytes()
    assert (ours / "steps.jsonl").read_bytes() == log.read_bytes()
    assert "warm start, by a run beside it" in (taken.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ("losses.ts_dmd=null", True),
        ("router.p_switch=0.9", True),  # the warm start has a router of its own
        ("simulations.target.tau_max=700", True),
        ("train.steps=3", True),
        ("train.lr=2e-3", True),  # and a rate of its own
        ("train.decay=0.1", True),
        ("student.ema=null", True),
        ("critic.updates=2", True),
        ("warm_start.critic=false", True),
        ("title=another", True),
        ("evaluate.images=2", True),
        ("seed=1", False),
        ("effects=[duotone_ocean, gold_frame]", False),
        ("prompts.trigger=false", False),
        ("student.rank=8", False),
        ("student.shift=3", False),
        ("train.batch_size=8", False),
        ("train.weight_decay=0.1", False),
        ("train.warmup_steps=0", False),
        ("teacher.steps=2", False),
        ("prepare.train_images=3", False),
        ("warm_start.updates=3", False),
        ("warm_start.lr=1e-3", False),
        ("warm_start.router.p_switch=0.5", False),
        ("warm_start.losses.keep.weight=3", False),
        ("warm_start.losses.keep.use=ta_fm", False),
        ("warm_start.decay=0", False),
    ],
)
def test_only_what_decides_it_tells_two_warm_starts_apart(setting, same):
    assert (plan_of(setting).warm == plan_of().warm) is same


def test_rate_momentum_and_router_count_where_the_warm_start_has_none_of_its_own():
    none = ("warm_start.lr=null", "warm_start.betas=null", "warm_start.router=null")
    for setting in ("train.lr=2e-3", "train.betas=[0.5, 0.9]", "router.p_switch=0.9"):
        assert plan_of(*none, setting).warm != plan_of(*none).warm


def test_another_teacher_under_the_same_name_is_another_warm_start(first, beside, tmp_path_factory):
    bank = tmp_path_factory.mktemp("bank") / "bank"
    shutil.copytree(shallow_folder() / "teachers", bank)
    where = f"teachers.manifest={bank / 'bank.yaml'}"
    assert was_taken(carried_out(beside / "same", where).path) is False  # the manifest's place is in the recipe
    assert was_taken(carried_out(beside / "again", where, "critic.lr=1e-4").path) is True
    path = bank / "thermal.safetensors"
    save_file({name: 0.9 * tensor for name, tensor in load_file(path).items()}, path)
    changed = carried_out(beside / "changed", where, "critic.lr=2e-4")
    assert not was_taken(changed.path)
    assert len(list((beside / ".cache" / KEPT).glob("*.safetensors"))) == 3


def test_one_that_is_damaged_is_told_and_made_again(first, beside, capsys):
    (kept,) = (beside / ".cache" / KEPT).glob("*.safetensors")
    raw = bytearray(kept.read_bytes())
    raw[-5] ^= 1
    kept.write_bytes(raw)
    again = carried_out(beside / "again", "critic.lr=1e-4", telling=True)
    assert not was_taken(again.path)
    assert "is damaged" in capsys.readouterr().err
    (kept,) = (beside / ".cache" / KEPT).glob("*.safetensors")
    (flat,) = (tensor for name, tensor in load_file(kept).items() if name.endswith(".flat"))
    state = load_file(warm_folder(first.path) / "checkpoints/000002/state.safetensors")
    assert flat.equal(state["student.flat"])


def test_a_run_with_other_threads_trains_its_own(first, beside, monkeypatch):
    others = torch.get_num_threads() + 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: others)
    assert not was_taken(carried_out(beside / "other", "critic.lr=1e-4").path)

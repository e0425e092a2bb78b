"""Checkpoints: whole or absent, exact to resume, and refusals that say what to do."""

from __future__ import annotations

import pytest
import torch

from clora.adapters.adapter import Adapter
from clora.errors import CloraError
from clora.recipe.schema import Train
from clora.seeding import Draws
from clora.training.checkpoint import Checkpoints, State
from clora.training.optimizer import MovingAverage, Trained
from clora.training.ranks import Ranks

SHAPES = {"a": (6, 5), "b": (5, 7)}


def fresh_state(critic: bool = True, average: bool = True) -> State:
    def trained(name: str) -> Trained:
        return Trained(Adapter.fresh(SHAPES, 2, 2.0, Draws(0).named(name)), 1e-2, Train(), Ranks())

    student = trained("student")
    return State(
        student, trained("critic") if critic else None, MovingAverage(student.adapter, 0.5) if average else None
    )


def train(state: State, steps: range) -> None:
    """Updates whose gradients depend on the weights, so that any difference grows."""
    for step in steps:
        for each in (state.student, state.critic):
            if each is not None:
                each.adapter.flat_grad.copy_(each.adapter.flat + Draws(0, step).normal("g", each.adapter.flat))
                each.update(step)
        if state.average is not None:
            state.average.update(state.student.adapter, step + 1)


def assert_same(one: State, two: State) -> None:
    tensors = two.tensors()
    assert one.tensors().keys() == tensors.keys()
    assert all(torch.equal(value, tensors[key]) for key, value in one.tensors().items())


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", "digest", keep=2)


@pytest.mark.parametrize(("critic", "average"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_resumed_run_goes_on_exactly(checkpoints, critic, average):
    whole, stopped, resumed = (fresh_state(critic, average) for _ in range(3))
    train(whole, range(6))
    train(stopped, range(3))
    checkpoints.save(3, stopped)
    assert checkpoints.resume(resumed) == 3
    assert_same(resumed, stopped)
    train(resumed, range(3, 6))
    assert_same(resumed, whole)


def test_without_checkpoints_a_run_starts_at_nothing(checkpoints):
    state = fresh_state()
    assert checkpoints.resume(state) == 0
    assert_same(state, fresh_state())


def test_a_checkpoint_is_a_copy(checkpoints):
    state, resumed = fresh_state(), fresh_state()
    checkpoints.save(1, state)
    train(state, range(2))
    checkpoints.resume(resumed)
    assert_same(resumed, fresh_state())


def test_only_the_newest_are_kept(checkpoints):
    for step in (1, 2, 10, 300):
        checkpoints.save(step, fresh_state())
    assert checkpoints.steps() == [10, 300]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["000010", "000300"]


def test_the_newest_is_resumed(checkpoints):
    state, resumed = fresh_state(), fresh_state()
    for step in (9, 10):
        train(state, range(step, step + 1))
        checkpoints.save(step, state)
    assert checkpoints.resume(resumed) == 10
    assert_same(resumed, state)


def test_a_half_written_checkpoint_is_none(checkpoints):
    checkpoints.save(1, fresh_state())
    torn = checkpoints.folder / ".000002.77.tmp"
    torn.mkdir()
    (torn / "state.safetensors").write_bytes(b"half")
    assert checkpoints.steps() == [1]
    assert checkpoints.resume(fresh_state()) == 1
    checkpoints.save(2, fresh_state())
    assert not torn.exists()  # it would hold its gigabytes for ever


def test_a_failed_save_keeps_the_older_ones(checkpoints, monkeypatch):
    for step in (1, 2):
        checkpoints.save(step, fresh_state())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clora.training.checkpoint.save_file", full)
    with pytest.raises(CloraError, match="the disk is full"):
        checkpoints.save(3, fresh_state())
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["000001", "000002"]


def test_another_recipes_checkpoint_is_refused_and_changes_nothing(checkpoints):
    state = fresh_state()
    train(state, range(2))
    checkpoints.save(2, state)
    untouched = fresh_state()
    with pytest.raises(CloraError, match="was made by another recipe; choose another --run-dir"):
        Checkpoints(checkpoints.folder, "other", keep=2).resume(untouched)
    assert_same(untouched, fresh_state())


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "garbage"])
def test_a_damaged_checkpoint_is_told_with_what_to_do(checkpoints, file, damage):
    path = checkpoints.save(5, fresh_state()) / file
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": whole[:-5], "empty": b"", "garbage": b"\xff" * len(whole)}[damage])
    with pytest.raises(CloraError, match=r"checkpoint .*000005 cannot be read .*remove that folder"):
        checkpoints.resume(fresh_state())


def test_a_checkpoint_of_other_shapes_is_told_as_unreadable(checkpoints):
    checkpoints.save(5, fresh_state())
    larger = Trained(Adapter.fresh({"a": (60, 50)}, 2, 2.0, Draws(0)), 1e-2, Train(), Ranks())
    with pytest.raises(CloraError, match="cannot be read"):
        checkpoints.resume(State(larger, None, None))

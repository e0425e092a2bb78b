"""Checkpoints: whole or absent, exact to resume, and refusals that say what to do."""

from __future__ import annotations

from shutil import copytree, rmtree

import pytest
import torch
from damage import WAYS, damage

from clora.adapters.adapter import Adapter
from clora.config.schema import Train
from clora.diffusion.rng import StepRng
from clora.errors import CloraError
from clora.runs.files.checksums import DamagedError
from clora.training.checkpoint import Checkpoints, State, stamp_of
from clora.training.distributed import Distributed
from clora.training.optimizer import MovingAverage, TrainableAdapter

SHAPES = {"a": (6, 5), "b": (5, 7)}


def fresh_state(critic: bool = True, average: bool = True) -> State:
    def trained(name: str) -> TrainableAdapter:
        return TrainableAdapter(Adapter.fresh(SHAPES, 2, 2.0, StepRng(0).named(name)), 1e-2, Train(), Distributed())

    student = trained("student")
    return State(
        student, trained("critic") if critic else None, MovingAverage(student.adapter, 0.5) if average else None
    )


def train(state: State, steps: range) -> None:
    """Updates whose gradients depend on the weights, so that any difference grows."""
    for step in steps:
        for each in (state.student, state.critic):
            if each is not None:
                each.adapter.flat_grad.copy_(each.adapter.flat + StepRng(0, step).normal("g", each.adapter.flat))
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
    with pytest.raises(CloraError, match="was made by another recipe, or by another version of its plugins; choose"):
        Checkpoints(checkpoints.folder, "other", keep=2).resume(untouched)
    assert_same(untouched, fresh_state())


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def saved(tmp_path, told) -> tuple[Checkpoints, dict[int, State]]:
    """Checkpoints of three moments of one training, and its states then."""
    checkpoints, states = Checkpoints(tmp_path / "checkpoints", "digest", keep=3, tell=told.append), {}
    for step in (2, 4, 120):
        states[step] = fresh_state()
        train(states[step], range(step))
        checkpoints.save(step, states[step])
    return Checkpoints(checkpoints.folder, "digest", keep=2, tell=told.append), states


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("another of its kind", "a text for a number")])
def test_a_damaged_checkpoint_is_kept_and_the_one_before_is_taken(saved, told, way):
    checkpoints, states = saved
    damage(checkpoints.folder / "000120/state.safetensors", way)
    resumed = fresh_state()
    assert checkpoints.resume(resumed) == 4
    assert_same(resumed, states[4])
    assert len(told) == 2
    assert "000120/state.safetensors is damaged" in told[0]
    assert "kept as 000120.damaged" in told[0]
    assert told[1].endswith("goes on from the checkpoint of update 4; the 116 updates up to 120 are made again")
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["000002", "000004", "000120.damaged"]


def test_every_flipped_bit_of_a_checkpoint_is_found(saved, told):
    checkpoints, _ = saved
    file = checkpoints.folder / "000120/state.safetensors"
    whole = file.read_bytes()
    for place in range(0, len(whole), 11):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        with pytest.raises(DamagedError, match=r"state\.safetensors"):
            stamp_of(file.parent)


def test_without_a_good_one_training_begins_again_and_says_so(saved, told):
    checkpoints, _ = saved
    for folder in list(checkpoints.folder.iterdir()):
        (folder / "state.safetensors").write_bytes(b"")
    untouched = fresh_state()
    assert checkpoints.resume(untouched) == 0
    assert_same(untouched, fresh_state())
    assert told[-1].endswith("is good: training begins again at update 0")
    assert len(list(checkpoints.folder.glob("*.damaged"))) == 3


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_two_that_changed_places_are_taken_by_what_they_hold(saved, told):
    checkpoints, states = saved
    newest, oldest = checkpoints.folder / "000120", checkpoints.folder / "000002"
    newest.rename(checkpoints.folder / "x")
    oldest.rename(newest)
    (checkpoints.folder / "x").rename(oldest)
    resumed = fresh_state()
    assert checkpoints.resume(resumed) == 120
    assert_same(resumed, states[120])
    assert names(checkpoints) == ["000002", "000004", "000120"]
    assert "000002 holds the checkpoint of update 120 and is called 000120 now" in "\n".join(told)


def test_a_renamed_one_is_taken_by_what_it_holds(saved, told):
    checkpoints, states = saved
    (checkpoints.folder / "000120").rename(checkpoints.folder / "000500")
    resumed = fresh_state()
    assert checkpoints.resume(resumed) == 120
    assert_same(resumed, states[120])
    assert names(checkpoints) == ["000002", "000004", "000120"]
    assert told[-1].endswith("update 120; the 380 updates up to 500 are made again")


def test_an_older_one_in_the_newest_place_is_not_taken_for_it(saved, told):
    checkpoints, states = saved
    rmtree(checkpoints.folder / "000120")
    copytree(checkpoints.folder / "000002", checkpoints.folder / "000120")
    resumed = fresh_state()
    assert checkpoints.resume(resumed) == 4
    assert_same(resumed, states[4])
    assert names(checkpoints) == ["000002", "000004", "000120.damaged"]
    assert "000120 holds the checkpoint of update 2, which is there already" in told[0]


def test_damaged_ones_do_not_count_among_those_that_are_kept(saved):
    checkpoints, _ = saved
    (checkpoints.folder / "000120/state.safetensors").write_bytes(b"")
    state = fresh_state()
    checkpoints.resume(state)
    checkpoints.save(6, state)
    assert names(checkpoints) == ["000004", "000006", "000120.damaged"]
    checkpoints.save(8, state)
    assert names(checkpoints) == ["000006", "000008", "000120.damaged"]


def test_a_file_in_the_place_of_the_folder_is_told_before_anything_is_trained(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CloraError, match="is a file, where the folder of the checkpoints belongs"):
        Checkpoints(tmp_path / "checkpoints", "digest", keep=2).resume(fresh_state())


def test_a_checkpoint_of_other_shapes_is_told_as_unreadable(checkpoints):
    checkpoints.save(5, fresh_state())
    larger = TrainableAdapter(Adapter.fresh({"a": (60, 50)}, 2, 2.0, StepRng(0)), 1e-2, Train(), Distributed())
    with pytest.raises(CloraError, match="cannot be read"):
        checkpoints.resume(State(larger, None, None))

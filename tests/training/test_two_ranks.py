"""Two processes train what one does with the rows of both; sharing a base changes no bit of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ranks_as_one
import two_ranks_parts
from safetensors.torch import load_file
from two_ranks_parts import SHARED, plan_with

from clora.diffusion.rng import StepRng
from clora.inference.session import ModelSession
from clora.planning.plan import Plan
from clora.planning.teacher_schedule import first_step, route_of
from clora.runs.job import run_folder
from clora.runs.run_dir import RunDir
from clora.training.distributed import Distributed
from clora.training.shard_sync import ShardSync

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, tiny_qwen: Callable[[str], Path]) -> Path:
    """The folder in which two processes have done every part of two_ranks_parts.py."""
    folder = tmp_path_factory.mktemp("ranks")
    words = [sys.executable, *TORCHRUN, two_ranks_parts.__file__, str(folder), str(tiny_qwen("2511"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder


def check_passed(folder: Path, part: Callable[..., None]) -> None:
    """Both ranks have done a part without an error."""
    assert [(folder / f"{part.__name__}.{rank}").read_text() for rank in (0, 1)] == ["", ""]


def losses(folder: RunDir) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in folder.steps.read_text().splitlines()]


def streams(plan: Plan, rank: int) -> list[str]:
    """Whom the one row of every cycle follows."""
    rng = StepRng(plan.recipe.seed, rank=rank)
    steps = [first_step(plan.recipe, n) for n in range(plan.recipe.train.steps)]
    effects = [card.name for card in plan.cards]
    return [route_of(plan.recipe, rng.at(step), effects).rows[0].stream for step in steps]


def check_same(one: RunDir, other: RunDir) -> None:
    """Losses, weights and numbers are the same to the last bit."""
    assert len(losses(one)) == 4
    assert losses(one) == losses(other)
    first, second = load_file(one.lora), load_file(other.lora)
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    assert one.read_results().values == other.read_results().values  # the first rank alone evaluates


@pytest.mark.slow(30)
def test_a_shared_base_trains_what_a_base_on_every_rank_trains(two_ranks: Path) -> None:
    check_passed(two_ranks, two_ranks_parts.whole_shared_and_watched_runs)
    plan = plan_with()
    pairs = set(zip(streams(plan, 0), streams(plan, 1), strict=True))
    assert len(pairs - {("general", "general"), ("effect", "effect")}) >= 1  # one rank alone has rows of a stream
    assert plan_with(SHARED).digest == plan.digest
    check_same(run_folder(plan, two_ranks / "whole"), run_folder(plan, two_ranks / "shared"))


@pytest.mark.slow
def test_the_first_of_several_processes_makes_an_observers_pictures(two_ranks: Path) -> None:
    check_passed(two_ranks, two_ranks_parts.whole_shared_and_watched_runs)
    whole, watched = (run_folder(plan_with(), two_ranks / name) for name in ("whole", "watched"))
    check_same(whole, watched)
    sheets = sorted(file.name for file in (watched.path / "observers/sheet").iterdir())
    assert sheets == [f"update_{update:06}.png" for update in (1, 2, 3, 4)]
    assert not (whole.path / "observers").exists()


@pytest.mark.slow
def test_every_rank_keeps_its_share_and_may_evaluate_as_often_as_it_likes(two_ranks: Path) -> None:
    check_passed(two_ranks, two_ranks_parts.uneven_evaluations)


@pytest.mark.slow
def test_a_large_models_backbone_comes_in_shares_and_is_checkpointed(two_ranks: Path) -> None:
    check_passed(two_ranks, two_ranks_parts.checkpointed_large_model)


@pytest.mark.slow
def test_two_processes_have_the_losses_and_gradients_of_one_with_the_rows_of_both(two_ranks: Path) -> None:
    check_passed(two_ranks, two_ranks_parts.rows_of_both)
    theirs = load_file(two_ranks / "rows.safetensors")
    ours = ranks_as_one.cycles(two_ranks / "rows", Distributed(), together=(0, 1))
    assert ours.keys() == theirs.keys()
    assert sum(name.startswith("gradient.critic.") for name in ours) == 4
    for name, value in ours.items():
        assert (value - theirs[name]).norm() <= 1e-4 * value.norm(), name
        assert value.any(), name


@pytest.mark.slow
def test_modules_of_components_take_the_step_of_the_ranks_mean_gradient(two_ranks: Path) -> None:
    check_passed(two_ranks, two_ranks_parts.owned_modules)


def test_a_rank_that_works_on_its_own_does_not_send_the_others_away() -> None:
    """The first rank evaluates while the others follow; what it calls must not tell them that all is done."""

    class Following(ShardSync):
        finished = 0

        def finish(self) -> None:
            self.finished += 1

    session = ModelSession(plan_with())
    session.pace = pace = Following()
    session.meet(Distributed())
    assert pace.finished == 0

"""The warm start: one adapter by flow matching, from which student and critic begin; resumable, counted, checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from two_effects import RECIPE, TwoEffects

from clora import cli
from clora.adapters.adapter import Adapter
from clora.config.schema import Train, WarmStart
from clora.diffusion.rng import StepRng
from clora.planning.cost import cost, forward_equivalents
from clora.planning.memory import trained_bytes, trained_numbers
from clora.runs.run_dir import RunDir
from clora.runs.stages.warm_start import KEPT
from clora.training.checkpoint import State
from clora.training.distributed import Distributed
from clora.training.optimizer import MovingAverage, TrainableAdapter
from clora.training.warm_start import hand_over, warm_folder, warm_plan

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

COLD = TwoEffects(("warm_start=null",))
plan_of, carried_out = COLD.plan, COLD.run
WARM = "warm_start={updates: 2, losses: {flow: {use: ta_fm, streams: [effect]}}, router: {use: pdsr, p_switch: 1.0}}"


def checkpoint(folder: Path, update: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoints/{update:06d}/state.safetensors")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with a warm start, up to its export."""
    return carried_out(tmp_path_factory.mktemp("warm") / "run", WARM)


def test_student_critic_and_average_begin_as_the_warm_starts_adapter():
    shapes = {"mix": (3, 5)}

    def fresh(name: str) -> Adapter:
        return Adapter.fresh(shapes, 2, 2.0, StepRng(0).named(name))

    learnt = fresh("learnt")
    learnt.flat.normal_(generator=torch.Generator().manual_seed(0))
    for with_critic in (True, False):
        student, critic = (
            TrainableAdapter(fresh(name), 1e-3, Train(), Distributed()) for name in ("student", "critic")
        )
        state = State(student, critic, MovingAverage(student.adapter, 0.9))
        bare = critic.adapter.flat.clone()
        hand_over(state, learnt, WarmStart(critic=with_critic))
        assert state.student.adapter.flat.equal(learnt.flat)
        assert state.average is not None
        assert state.average.adapter.flat.equal(learnt.flat)
        assert critic.adapter.flat.equal(learnt.flat if with_critic else bare)
        assert state.student.adapter.factors["mix"][1].equal(learnt.factors["mix"][1])  # the views follow


def test_a_critic_of_a_higher_rank_computes_what_the_warm_start_learnt():
    shapes = {"mix": (3, 5)}
    learnt = Adapter.fresh(shapes, 2, 4.0, StepRng(0))
    learnt.flat.normal_(generator=torch.Generator().manual_seed(0))
    student = TrainableAdapter(Adapter.fresh(shapes, 2, 4.0, StepRng(1)), 1e-3, Train(), Distributed())
    critic = TrainableAdapter(Adapter.fresh(shapes, 7, 14.0, StepRng(2)), 1e-3, Train(), Distributed())
    hand_over(State(student, critic, None), learnt, WarmStart())
    (a, b, scale), (c, d, other) = learnt.factors["mix"], critic.adapter.factors["mix"]
    expected = scale * b.detach().double().numpy() @ a.detach().double().numpy()
    np.testing.assert_allclose(other * d.detach().double().numpy() @ c.detach().double().numpy(), expected, atol=1e-6)
    assert c[2:].abs().min() > 0  # the rows beyond can learn


def test_the_warm_start_is_what_flow_matching_alone_trains(warm, tmp_path):
    alone = carried_out(
        tmp_path / "run",
        "losses={bs_dmd: null, ts_dmd: null}",
        "router.p_switch=1.0",
        "critic=null",
        "student.ema=null",
    )
    theirs = checkpoint(alone.path, 2)
    ours = checkpoint(warm_folder(warm.path), 2)
    assert ours.keys() == theirs.keys()
    # the loss has another name there, and so other noise; the rows are the same
    assert not ours["student.flat"].equal(theirs["student.flat"])
    named = WARM.replace("flow:", "ta_fm:")
    same = checkpoint(warm_folder(carried_out(tmp_path / "named", named).path), 2)
    for name, value in theirs.items():
        assert same[name].equal(value), name


def test_its_adapter_is_kept_and_every_update_logged(warm):
    folder = warm_folder(warm.path)
    tensors = load_file(folder / "lora.safetensors")
    flat = checkpoint(folder, 2)["student.flat"]
    kept = sum(tensor.numel() for tensor in tensors.values())
    assert kept == flat.numel()
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert all(step["forward_equivalents"] == 3.0 for step in steps)
    assert [set(step["losses"]) for step in steps] == [{"flow"}] * 2


@pytest.mark.parametrize("killed", ["in the warm start", "between both", "in training"])
def test_a_run_that_was_stopped_anywhere_ends_the_same(warm, tmp_path, killed):
    folder = RunDir(tmp_path / "run")
    shutil.copytree(warm.path, folder.path)
    shutil.copytree(warm.cache, folder.cache)
    shutil.rmtree(folder.cache / KEPT)  # else it would be taken from there
    for name in ("stages.json", "export/lora.safetensors"):
        (folder.path / name).unlink()
    lost = [folder.path / "checkpoints/000002"]
    if killed != "in training":
        lost.append(folder.path / "checkpoints/000001")
    if killed == "in the warm start":
        lost.append(warm_folder(folder.path) / "checkpoints/000002")
    for path in lost:
        shutil.rmtree(path)
    carried_out(folder.path, WARM)
    assert folder.lora.read_bytes() == warm.lora.read_bytes()
    assert len((warm_folder(folder.path) / "steps.jsonl").read_text().splitlines()) == 2


def test_a_warm_start_changes_what_is_trained_and_what_it_is_called(warm, tmp_path):
    cold = carried_out(tmp_path / "run")
    assert cold.lora.read_bytes() != warm.lora.read_bytes()
    assert cold.info().digest != warm.info().digest
    assert not warm_folder(cold.path).exists()


def test_a_critic_may_have_a_rank_of_its_own(tmp_path):
    folder = carried_out(tmp_path / "run", WARM, "critic.rank=6", "train.steps=1", "warm_start.updates=1")
    tensors = checkpoint(folder.path, 1)
    assert tensors["critic.flat"].numel() * 4 == tensors["student.flat"].numel() * 6
    plan, wide = plan_of(), plan_of("critic.rank=6")
    student = 16 * trained_numbers(plan)  # weights, gradients and two moments in float32
    assert trained_bytes(wide) - trained_bytes(plan) == student // 2


def test_its_rate_and_momentum_are_the_runs_unless_given():
    for words, expected in (
        ((), (1e-3, (0.0, 0.99))),
        (("warm_start.lr=2e-3", "warm_start.betas=[0.9, 0.95]"), (2e-3, (0.9, 0.95))),
    ):
        alone = warm_plan(plan_of(WARM, *words))
        assert alone is not None
        assert (alone.recipe.train.lr, alone.recipe.train.betas) == expected


def test_its_cost_is_counted():
    plan = plan_of(WARM)
    alone = warm_plan(plan)
    assert alone is not None
    assert forward_equivalents(alone, 4) == 3.0  # one forward with its backward a row
    assert "warm start      2 updates before it, 3.0 a row, 24 in all" in cost(plan)
    assert "warm start" not in cost(plan_of())
    assert warm_plan(plan_of()) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["warm_start={updates: 2}"], "warm_start: it has no losses; add some under warm_start.losses"),
        (["warm_start={losses: {f: ta_fm}, updates: -1}"], "warm_start.updates must be"),
        (["warm_start={losses: {f: ta_fm}, update: 2}"], "did you mean 'updates'?"),
        (["warm_start={losses: {f: ta_fm}, rank: 2}"], "unknown key 'rank' in warm_start"),
        (["warm_start={losses: {f: tafm}}"], "losses has no component 'tafm'; did you mean 'ta_fm'?"),
        ([WARM.replace("p_switch: 1.0", "p_switch: 0.0")], "its router gives no row that its losses read"),
        (["warm_start={losses: {f: {use: dmd, simulation: backward}}}"], "asks for the critic, which the warm start"),
        (
            ["warm_start={losses: {f: {use: dmd, simulation: back}}}"],
            "asks for simulation 'back', not in",
        ),
        ([WARM, "critic.rank=2"], "its adapter of rank 4 does not fit the critic's 2; raise critic.rank"),
        (["warm_start=5"], "warm_start: expected a mapping"),
    ],
)
def test_a_warm_start_with_a_mistake_is_told(words, sentence, capsys):
    sets = [part for text in (*COLD.words, *words) for part in ("--set", text)]
    assert cli.main(["validate", str(RECIPE), *sets]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("updates", "steps", "told"), [(21, 2, True), (20, 2, False), (21, 0, False)])
def test_a_warm_start_longer_than_the_run_is_doubtful(updates, steps, told, capsys):
    words = (WARM, f"warm_start.updates={updates}", f"train.steps={steps}", "train.warmup_steps=0")
    sets = [part for text in (*COLD.words, *words) for part in ("--set", text)]
    assert cli.main(["validate", str(RECIPE), *sets]) == 0
    sentence = (
        f"warm_start.updates: its {updates} updates are longer than the run: more than 10 for each of its 2 cycles"
    )
    assert (sentence in capsys.readouterr().err) is told

"""The critic's lag: its equation, that measuring it changes nothing, that it resumes, what it costs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file
from two_effects import RECIPE, TwoEffects

from clora import cli
from clora.adapters.adapter import Adapter
from clora.config.schema import Lag, Train
from clora.contracts.step import LossTerm
from clora.contracts.values import Row
from clora.diffusion.rng import StepRng
from clora.planning.cost import cost
from clora.runs.run_dir import RunDir
from clora.testing import example_step
from clora.training.critic_lag import is_due, probe
from clora.training.distributed import Distributed
from clora.training.optimizer import TrainableAdapter
from clora.training.owned import OwnedParts

SMALL = TwoEffects(("student.ema=null", "train.steps=3", "router.p_switch=0.8", "critic.own=[target]"))
carried_out = SMALL.run
LAG = "critic.lag={every: 2, updates: 3, batches: 2}"


def steps(folder: RunDir) -> list[dict]:
    return [json.loads(line) for line in folder.steps.read_text().splitlines()]


class Quadratic:
    """A cycle whose critic's loss is mean (w - c)^2, c being a draw of the step; half of it is logged as `high`."""

    def __init__(self) -> None:
        adapter = Adapter.fresh({"mix": (3, 5)}, 2, 2.0, StepRng(0))
        self.critics = {
            "critic": TrainableAdapter(adapter, 0.1, Train(betas=(0.0, 0.9), weight_decay=0.0), Distributed())
        }
        losses = {"fake": SimpleNamespace(streams=("effect",), weight=1.0)}
        self.terms = SimpleNamespace(of=self.critic_terms, losses={"critic": losses})
        self.batches, self.schedule, self.owned = self, None, OwnedParts()

    def context(self, rng, phase, schedule):
        return example_step([Row("effect", "ink")], torch.zeros(1, 1, 1, 1), phase=phase, rng=rng)

    def progress(self, update):
        return 0.0

    def critic_terms(self, phase, step):
        assert phase == "critic"
        (a, b, _) = self.critics["critic"].adapter.factors["mix"]
        c = float(step.rng.uniform("c", 1))
        loss = ((a - c).square().sum() + (b - c).square().sum()) / (a.numel() + b.numel())
        return {"fake": LossTerm(loss, {"error.high": 0.5 * float(loss.detach()), "rows": 1.0})}, {}


def test_the_lag_is_the_loss_against_that_of_a_fitted_copy():
    """AdamW with betas 0 and 0.9 by hand in float64, then (L(critic) - L(fit)) / L(fit)."""
    trainer, lag, rng = Quadratic(), Lag(every=5, updates=4, batches=3), StepRng(7)
    adapter = trainer.critics["critic"].adapter
    before = adapter.flat.clone()
    found = probe(trainer, lag, 9, rng)  # pyright: ignore[reportArgumentType]
    assert torch.equal(adapter.flat, before)
    assert not adapter.flat_grad.any()

    def centre(name: str, k: int) -> float:
        return float(rng.named(name).at(k).uniform("c", 1))

    w = before.double()
    square = torch.zeros_like(w)
    for k in range(4):
        gradient = 2 * (w - centre("lag.fit", 36 + k)) / w.numel()
        square = 0.9 * square + 0.1 * gradient**2
        w = w - 0.1 * gradient / ((square / (1 - 0.9 ** (k + 1))).sqrt() + 1e-8)

    def held_out(w: torch.Tensor) -> float:
        return sum(float((w - centre("lag.held_out", 27 + k)).square().mean()) for k in range(3)) / 3

    expected = (held_out(before.double()) - held_out(w)) / held_out(w)
    assert found == pytest.approx({"critic.fake.lag": expected, "critic.fake.lag.high": expected}, rel=1e-4)


def test_its_turn_comes_after_every_so_many_updates():
    assert [update for update in range(10) if is_due(Lag(every=4), update)] == [3, 7]
    assert not is_due(None, 3)


@pytest.mark.slow
def test_measuring_changes_nothing_and_a_resumed_run_measures_the_same(tmp_path: Path) -> None:
    plain, measured = carried_out(tmp_path / "plain"), carried_out(tmp_path / "measured", LAG)
    ours, theirs = (load_file(run.path / "checkpoints/000003/state.safetensors") for run in (measured, plain))
    assert ours.keys() == theirs.keys()
    assert all(value.equal(theirs[key]) for key, value in ours.items())
    for one, other in zip(steps(measured), steps(plain), strict=True):
        assert one["losses"] == other["losses"]
        more = {name for name in one["logs"] if name not in other["logs"]}
        if one["step"] != 2:
            assert not more
            assert one["forward_equivalents"] == other["forward_equivalents"]
            continue
        assert {"critic.on_backward.lag", "critic.on_target.lag"} <= more
        assert all(name.split(".")[2] == "lag" for name in more)
        assert any(name.endswith(".lag.high") for name in more)
        assert one["forward_equivalents"] > other["forward_equivalents"] + 10
    again = RunDir(tmp_path / "again")
    shutil.copytree(measured.path, again.path)
    (again.path / "stages.json").unlink()
    for step in (2, 3):
        shutil.rmtree(again.path / f"checkpoints/{step:06d}")
    carried_out(again.path, LAG)
    stall = "teacher.stall"
    for one, other in zip(steps(again), steps(measured), strict=True):
        assert {k: v for k, v in one["logs"].items() if k != stall} == {
            k: v for k, v in other["logs"].items() if k != stall
        }


def test_its_cost_is_told():
    plan = SMALL.plan(LAG, "router.p_switch=1.0")
    told = next(line for line in cost(plan).splitlines() if line.startswith("critic lag"))
    # a rollout of 0 to 3 steps and the one that is read, target simulation, two critics: 1.5 + 1 + 1 + 3 + 3 forwards
    times, each = int(told.split()[2]), float(told.split()[4])
    assert times == 1
    assert each == pytest.approx(9.5 * (3 + 2 * 2), rel=0.1)
    bare = evolve(plan, recipe=evolve(plan.recipe, critic=evolve(plan.recipe.critic, lag=None)))
    assert "critic lag" not in cost(bare)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([LAG, "train.shard_base=true"], "critic.lag: it is not measured where processes share one base"),
        (["critic.lag={every: 0}"], "critic.lag.every must be"),
        (["critic.lag={updates: 5000}"], "critic.lag.updates must be"),
        (["critic.lag={often: 5}"], "unknown key 'often' in critic.lag"),
    ],
)
def test_a_lag_with_a_mistake_is_refused(words, sentence, capsys):
    sets = [part for text in (*SMALL.words, *words) for part in ("--set", text)]
    assert cli.main(["validate", str(RECIPE), *sets]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err

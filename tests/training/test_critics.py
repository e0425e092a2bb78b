"""A critic for each simulation: who trains it, who asks it, what it costs, how it is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from ranks_as_one import Noted
from safetensors.torch import load_file
from shallow_emoji import whole_emoji
from two_effects import RECIPE, TwoEffects

from clora import cli
from clora.adapters.adapter import Adapter
from clora.config.schema import Critic, Train, WarmStart
from clora.contracts.step import Forward, Simulated
from clora.contracts.values import Row
from clora.diffusion.rng import StepRng
from clora.inference.session import ModelSession
from clora.planning.cost import cost, forward_equivalents
from clora.planning.memory import critic_numbers, trained_bytes
from clora.planning.plan import Plan
from clora.runs.run_dir import RunDir
from clora.runs.stages.prepare import prepare
from clora.testing import drive, example_step
from clora.training.batches import Batches
from clora.training.checkpoint import State
from clora.training.critics import critic_of, own_critics
from clora.training.distributed import Distributed
from clora.training.optimizer import TrainableAdapter
from clora.training.start import make_state
from clora.training.trainer import Trainer
from clora.training.warm_start import hand_over

#: what a checkpoint has of each
KEPT = ("flat", "optimizer.scalar.0.step", "optimizer.state.0.exp_avg", "optimizer.state.0.exp_avg_sq")
SMALL = TwoEffects(whole_emoji())  # two blocks alone tell one critic's gradient from another's less clearly
plan_of, carried_out = SMALL.plan, SMALL.run
OWN = "critic.own=[target]"
MOSTLY = "router.p_switch=0.8"  # effect rows in both updates


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["independent", "shared"])
def test_each_critic_has_the_gradient_of_its_own_losses_alone(schedule: str, tmp_path: Path) -> None:
    """As if it were the one critic, and its losses the only ones."""
    at = f"train.schedule={schedule}"
    both = plan_of(OWN, at)
    session = ModelSession(both)
    targets = prepare(both, session, RunDir(tmp_path / "run"))
    state = make_state(both, session, Distributed())
    state.student.adapter.flat.normal_(0, 0.02, generator=torch.Generator().manual_seed(0))
    for critic in state.critics.values():
        critic.adapter.flat.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))  # the same numbers
    assert set(state.critics) == {"critic", "critic/target"}

    def gradients(plan: Plan) -> dict[str, torch.Tensor]:
        noted = {name: Noted(each, rate=0.0) for name, each in {"student": state.student, **state.critics}.items()}
        own = {name: noted[name] for name in own_critics(plan.recipe.critic)}
        batches = Batches(plan, session, targets)
        trainer = Trainer(plan.recipe, batches, session.evaluator, noted["student"], noted["critic"], own=own)
        logs = trainer.cycle(0, StepRng(3))
        assert {name for name in logs if name.endswith("grad_norm")} == {
            f"{name.replace('/', '.')}.grad_norm" for name in ("student", "critic", *own)
        }
        return {name: each.noted[0] for name, each in noted.items() if each.noted}

    ours = gradients(both)
    backward = gradients(plan_of(at, "critic.losses.on_target=null"))["critic"]
    target = gradients(plan_of(at, "critic.losses.on_backward=null"))["critic"]
    mixture = gradients(plan_of(at))["critic"]
    for mine, alone in ((ours["critic"], backward), (ours["critic/target"], target)):
        assert (mine - alone).norm() <= 1e-4 * alone.norm()
        assert (mine - mixture).norm() > 0.1 * mixture.norm()


def test_the_fake_score_of_a_simulation_is_its_own_critics():
    """g = (f - r) / mean |x - r| with f = x_sigma - sigma v of that critic, by hand in float64."""
    dmd = pytest.importorskip("clora_dmd.dmd").Dmd("target", streams=("effect",), guidance_scale=1.0)
    x = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    step = example_step([Row("effect", "ink")] * 2, x)
    critic = Critic(own=("target",))
    slopes = {"critic": 0.9, "critic/target": 0.2, "ink": 0.5}
    x0 = x.clone().requires_grad_()
    simulated = {"target": Simulated((0, 1), x, torch.full((2,), 0.5), x0)}

    def velocity(forward: Forward) -> torch.Tensor:
        (name,) = set(forward.adapters)
        return slopes[name] * forward.x_sigma

    assert critic_of(critic, dmd) == "critic/target"
    drive(dmd(evolve(step, critic=critic_of(critic, dmd))), velocity, simulated).loss.backward()
    assert x0.grad is not None
    sigma = dmd.sigmas(step).double().numpy().reshape(-1, 1, 1, 1)
    eps = step.rng.normal("noise", x).double().numpy()
    clean = x.double().numpy()
    noisy = (1 - sigma) * clean + sigma * eps
    fake, real = ((1 - sigma * slopes[name]) * noisy for name in ("critic/target", "ink"))
    expected = (fake - real) / np.abs(clean - real).mean((1, 2, 3), keepdims=True) / x.numel()
    np.testing.assert_allclose(x0.grad.numpy(), expected, atol=1e-7)


def test_without_critics_of_their_own_simulations_share_one():
    dmd = pytest.importorskip("clora_dmd.dmd").Dmd
    assert critic_of(Critic(), dmd("target")) == critic_of(None, dmd("target")) == "critic"
    assert critic_of(Critic(own=("target",)), dmd("backward")) == "critic"
    assert own_critics(Critic(own=("target", "target"))) == ("critic/target",)


@pytest.mark.slow
def test_a_run_with_two_critics_resumes_exactly(tmp_path: Path) -> None:
    whole = carried_out(tmp_path / "whole", OWN, MOSTLY)
    last = load_file(whole.path / "checkpoints/000002/state.safetensors")
    first = load_file(whole.path / "checkpoints/000001/state.safetensors")
    for name in ("critic", "critic/target"):
        assert {f"{name}.{key}" for key in KEPT} <= last.keys()
        assert not last[f"{name}.flat"].equal(first[f"{name}.flat"])
    assert not last["critic.flat"].equal(last["critic/target.flat"])
    again = RunDir(tmp_path / "again")
    shutil.copytree(whole.path, again.path)
    shutil.rmtree(again.path / "checkpoints/000002")
    (again.path / "stages.json").unlink()
    carried_out(again.path, OWN, MOSTLY)
    resumed = load_file(again.path / "checkpoints/000002/state.safetensors")
    assert resumed.keys() == last.keys()
    assert all(value.equal(resumed[key]) for key, value in last.items())


def test_every_critic_begins_as_the_warm_start():
    def trained(rank: int, seed: int) -> TrainableAdapter:
        return TrainableAdapter(Adapter.fresh({"mix": (3, 5)}, rank, 2.0, StepRng(seed)), 1e-3, Train(), Distributed())

    learnt = Adapter.fresh({"mix": (3, 5)}, 2, 2.0, StepRng(0))
    learnt.flat.normal_(generator=torch.Generator().manual_seed(0))
    own = {"critic/target": trained(2, 3)}
    state = State(trained(2, 1), trained(2, 2), None, own)
    hand_over(state, learnt, WarmStart())
    assert all(critic.adapter.flat.equal(learnt.flat) for critic in state.critics.values())
    assert len(state.critics) == 2


@pytest.mark.slow
def test_its_memory_and_updates_are_counted():
    one, two = plan_of(), plan_of(OWN)
    assert trained_bytes(two) - trained_bytes(one) == 16 * critic_numbers(one)  # weights, gradients, two moments
    assert forward_equivalents(two) == forward_equivalents(one)  # every row goes to one critic, as before
    assert "2 of each of 2 critics, 4 rows each" in cost(two)
    assert "2 of the critic, 4 rows each" in cost(one)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["critic.own=[targets]"], "critic.own: there is no simulation 'targets'; did you mean 'target'?"),
        ([OWN, "critic.losses.on_target=null"], "no loss under critic.losses trains the critic of 'target'; add one"),
        (["critic.own=[target, backward]"], "no loss is left for the critic that the others share; leave one"),
        (["critic.own=target"], "critic.own: expected a list"),
        ([f"critic.own=[{', '.join(f'x{i}' for i in range(50))}]"], "critic.own: at most 32 of them can be used"),
    ],
)
def test_a_critic_that_nothing_trains_is_refused(words, sentence, capsys):
    sets = [part for text in (*SMALL.words, *words) for part in ("--set", text)]
    assert cli.main(["validate", str(RECIPE), *sets]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err
    assert len(err.splitlines()) < 20


def test_a_critic_that_nobody_asks_is_told(capsys):
    sets = [part for text in (*SMALL.words, OWN, "losses.ts_dmd=null") for part in ("--set", text)]
    assert cli.main(["validate", str(RECIPE), *sets]) == 0
    assert "no loss asks the critic of target, which is trained all the same" in capsys.readouterr().out

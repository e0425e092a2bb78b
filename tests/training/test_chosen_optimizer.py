"""A recipe's optimizer trains, resumes and is refused where it is something else; without one it is AdamW as ever."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import field, frozen
from safetensors.torch import load_file
from two_effects import TwoEffects

from clora.adapters.adapter import Adapter
from clora.config.problems import RecipeError
from clora.config.schema import Train
from clora.diffusion.rng import StepRng
from clora.planning.memory import trained_bytes, trained_numbers
from clora.plugin_system.guard import ComponentError, Owners
from clora.testing.conformance import problems_of
from clora.training.chosen_optimizer import ChosenOptimizer
from clora.training.distributed import Distributed
from clora.training.optimizer import TrainableAdapter

SHAPES = {"a": (6, 5), "b": (5, 7)}
SMALL = TwoEffects(("warm_start=null",))
OWNERS = Owners({"optimizer": "odd of faulty 0.3, r.yaml:3:1"})
TOLD = r"^optimizer \(odd of faulty 0\.3, r\.yaml:3:1\): "


class Drifting(torch.optim.Optimizer):
    """Gradient descent by a rate that it grows itself: state as tensors of two types, numbers, and group numbers."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "grown": 1.0, "calls": 0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            group["grown"] *= 1.3
            group["calls"] += 1
            for weights in group["params"]:
                kept = self.state[weights]
                kept["half"] = kept.get("half", torch.zeros_like(weights, dtype=torch.float64)) + weights.grad.double()
                kept["seen"] = kept.get("seen", 0) + 1
                kept["first"] = kept.get("first", True) and kept["seen"] == 1
                kept["unused"] = None
                rate = group["lr"] * group["grown"] / kept["seen"] * (1 if type(kept["first"]) is bool else math.nan)
                weights.sub_(kept["half"].float(), alpha=rate)


@frozen
class Odd:
    """An optimizer component that does as it is told."""

    how: str = "well"
    works_on: str = "weights"
    kept: Any = field(default=3.0)

    def state_per_weight(self) -> Any:
        return self.kept

    def make(self, parameters, lr):
        if self.how == "raises":
            raise RuntimeError("no rule")
        other = torch.nn.Parameter(torch.zeros(3))
        if self.how == "steps":
            return _Raising(parameters, {"lr": lr})
        if self.how == "climbs":
            return torch.optim.SGD(parameters, lr=lr, maximize=True)
        if self.how == "hides":
            return _Hiding(parameters, {"lr": lr})
        if self.how == "state":
            return _Keeping(parameters, {"lr": lr})
        others = {"nothing": None, "text": "AdamW", "class": torch.optim.SGD, "other": torch.optim.SGD([other])}
        others["more"] = torch.optim.SGD([*parameters, other])
        return others.get(self.how, Drifting(parameters, lr))


class _Raising(torch.optim.Optimizer):
    def step(self, closure=None):
        raise ArithmeticError("the rule has no answer")


class _Hiding(torch.optim.Optimizer):
    updates = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.updates += 1
        for weights in self.param_groups[0]["params"]:
            weights.sub_(weights.grad, alpha=1e-2 / self.updates)


class _Keeping(torch.optim.Optimizer):
    def step(self, closure=None):
        self.state[self.param_groups[0]["params"][0]]["words"] = ["a", "b"]


def trained(part: Any = None, **keys: Any) -> TrainableAdapter:
    adapter = Adapter.fresh(SHAPES, 2, 2.0, StepRng(0))
    adapter.flat.copy_(StepRng(0).normal("start", adapter.flat))
    return TrainableAdapter(adapter, 1e-2, Train(**keys), Distributed(), ChosenOptimizer(part, OWNERS))


def update(one: TrainableAdapter, step: int) -> None:
    one.adapter.flat_grad.copy_(StepRng(step).normal("gradient", one.adapter.flat))
    one.update(step)


@pytest.mark.parametrize("works_on", ["weights", "matrices"])
def test_all_of_the_state_resumes_to_the_last_bit(works_on: str) -> None:
    whole, first, second = (trained(Odd(works_on=works_on)) for _ in range(3))
    for step in range(4):
        update(whole, step)
    for step in range(2):
        update(first, step)
    kept = {key: value.clone() for key, value in first.state().items()}
    update(second, 9)  # what it had before must go
    second.restore(kept)
    assert {key: value.tolist() for key, value in second.state().items()} == {
        key: value.tolist() for key, value in kept.items()
    }
    for step in range(2, 4):
        update(second, step)
    assert torch.equal(second.adapter.flat, whole.adapter.flat)
    count = 1 if works_on == "weights" else 4
    assert kept.keys() == {
        "flat",
        "optimizer.group.0.grown",
        "optimizer.group.0.calls",
        *(f"optimizer.state.{i}.half" for i in range(count)),
        *(f"optimizer.number.{i}.{key}" for i in range(count) for key in ("seen", "first")),
    }


def test_matrices_are_the_adapters_own_and_elementwise_rules_do_the_same_on_them() -> None:
    flat, apart = trained(Odd()), trained(Odd(works_on="matrices"))
    shapes = [tuple(parameter.shape) for parameter in apart.optimizer.param_groups[0]["params"]]
    assert shapes == [(2, 6), (5, 2), (2, 5), (7, 2)]
    for step in range(3):
        update(flat, step)
        update(apart, step)
    assert torch.equal(flat.adapter.flat, apart.adapter.flat)
    assert not apart.adapter.flat_grad.any()


def test_the_rate_of_every_group_follows_its_course() -> None:
    one = trained(Odd(), steps=4, warmup_steps=2)
    update(one, 0)
    assert one.optimizer.param_groups[0]["lr"] == 1e-2 / 2


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("nothing", r"its make\(\) gave None; expected a torch.optim.Optimizer"),
        ("text", r"its make\(\) gave str 'AdamW'; expected a torch.optim.Optimizer"),
        ("class", r"its make\(\) gave type .*SGD.*; expected a torch.optim.Optimizer"),
        ("other", r"its make\(\) gave an optimizer of other parameters; expected all that it was given"),
        ("more", r"its make\(\) gave an optimizer of other parameters"),
        ("raises", r"RuntimeError: no rule at test_chosen_optimizer\.py:\d+"),
    ],
)
def test_a_component_that_makes_something_else_is_named(how: str, sentence: str) -> None:
    with pytest.raises(ComponentError, match=TOLD + sentence):
        trained(Odd(how))


def test_an_optimizer_that_raises_or_keeps_what_no_checkpoint_can_is_named() -> None:
    with pytest.raises(ComponentError, match=TOLD + r"ArithmeticError: the rule has no answer"):
        update(trained(Odd("steps")), 0)
    one = trained(Odd("state"))
    update(one, 0)
    with pytest.raises(ComponentError, match=TOLD + r"TypeError: .* 'words': list .*; a checkpoint keeps tensors"):
        one.state()


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (Odd(works_on="all"), "its works_on is str 'all'; expected 'weights' or 'matrices'"),
        (Odd(kept=0.0), "it keeps 1 numbers for a weight, and says 0"),
        (Odd("climbs"), "a quadratic loss did not fall in 20 updates"),
        (Odd("hides"), "a run that is resumed trains other weights"),
        (Odd("nothing"), "its make() gave None"),
    ],
)
def test_an_optimizer_that_breaks_a_rule_is_caught(part: Odd, sentence: str) -> None:
    assert any(sentence in problem for problem in problems_of("optimizer", part, checks_imports=False))


def refused(*sets: str) -> str:
    with pytest.raises(RecipeError) as error:
        SMALL.plan(*sets)
    return str(error.value)


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        ("mouon", "--set optimizer: optimizer has no component 'mouon'; did you mean 'muon'?"),
        ("{use: muon, momentun: 0.9}", "did you mean 'momentum'?"),
        ("{use: muon, momentum: 1.0}", "momentum"),
        ("{use: adamw, betas: [0.9, 1.0]}", "betas"),
        ("{use: torch, name: SDG}", "optimizer: torch.optim has no optimizer 'SDG'; did you mean 'SGD'?"),
        ("{use: torch, name: os.system}", "optimizer: torch.optim has no optimizer 'os.system'"),
        ("{use: torch, name: SGD, args: {momentun: 0.9}}", "torch.optim.SGD takes no 'momentun'; did you mean"),
    ],
)
def test_a_mistake_in_a_recipe_is_told_with_the_nearest_word(optimizer: str, sentence: str) -> None:
    assert sentence in refused(f"optimizer={optimizer}")


def test_an_optimizer_on_matrices_does_not_wait_in_cpu_memory() -> None:
    said = refused("optimizer=muon", "train.offload_optimizer=true")
    assert "train.offload_optimizer: the recipe's optimizer works on the matrices where they lie" in said


def test_keys_that_nobody_reads_are_doubted() -> None:
    told = [line for line in SMALL.plan("optimizer=adamw", "train.betas=[0.1, 0.9]").warnings if "nobody" in line]
    assert [line.split(": ", 1)[1] for line in told] == [
        f"train.{key}: nobody reads it: `optimizer` has keys of its own" for key in ("betas", "weight_decay")
    ]
    assert not [line for line in SMALL.plan("train.betas=[0.1, 0.9]").warnings if "nobody" in line]


def test_the_optimizer_has_a_say_in_the_digest_and_the_default_has_none() -> None:
    digests = {SMALL.plan(f"optimizer={each}").digest for each in ("adamw", "muon", "{use: muon, momentum: 0.9}")}
    assert len(digests) == 3
    assert SMALL.plan().digest == SMALL.plan("optimizer=null").digest not in digests


def test_memory_counts_the_state_that_the_optimizer_keeps() -> None:
    default, adamw, muon = (SMALL.plan(*sets) for sets in ((), ("optimizer=adamw",), ("optimizer=muon",)))
    assert trained_bytes(default) == trained_bytes(adamw)
    with_critic = 2 if default.recipe.critic is not None else 1
    assert trained_bytes(adamw) - trained_bytes(muon) == 4 * with_critic * trained_numbers(default)


def test_a_run_trains_by_the_recipes_optimizer(tmp_path: Path) -> None:
    sets = ("optimizer={use: torch, name: SGD, args: {momentum: 0.5}}", "train.steps=1")
    run = SMALL.run(tmp_path / "run", *sets)
    kept = load_file(run.path / "checkpoints/000001/state.safetensors")
    assert {"student.optimizer.state.0.momentum_buffer", "critic.optimizer.state.0.momentum_buffer"} <= kept.keys()
    assert not [key for key in kept if "exp_avg" in key]

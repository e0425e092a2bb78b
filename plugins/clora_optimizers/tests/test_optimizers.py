"""AdamW as the default to the bit, Muon against float64, torch's classes by name, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clora_optimizers.adamw import AdamW
from clora_optimizers.muon import Muon
from clora_optimizers.torch_class import UNSUITED, TorchClass, _classes

from clora.adapters.adapter import Adapter
from clora.api import StepRng
from clora.config.schema import Train
from clora.testing.conformance import problems_of
from clora.training.chosen_optimizer import ChosenOptimizer
from clora.training.distributed import Distributed
from clora.training.optimizer import TrainableAdapter

SHAPES = {"a": (24, 20), "b": (20, 28)}


def trained(part: Any = None, **keys: Any) -> TrainableAdapter:
    adapter = Adapter.fresh(SHAPES, 4, 4.0, StepRng(0))
    adapter.flat.copy_(StepRng(0).normal("start", adapter.flat))
    return TrainableAdapter(adapter, 1e-2, Train(**keys), Distributed(), ChosenOptimizer(part))


def update(one: TrainableAdapter, step: int) -> None:
    one.adapter.flat_grad.copy_(StepRng(step).normal("gradient", one.adapter.flat))
    one.update(step)


@pytest.mark.parametrize("offload", [False, True])
def test_adamw_is_the_default_to_the_last_bit(offload: bool) -> None:
    keys: dict[str, Any] = {"betas": (0.5, 0.9), "weight_decay": 0.1}
    default, ours = trained(**keys, offload_optimizer=offload), trained(AdamW(**keys), offload_optimizer=offload)
    by_name = trained(TorchClass("AdamW", {**keys, "betas": [0.5, 0.9]}), offload_optimizer=offload)
    for step in range(6):
        for one in (default, ours, by_name):
            update(one, step)
    assert torch.equal(default.adapter.flat, ours.adapter.flat)
    assert torch.equal(default.adapter.flat, by_name.adapter.flat)
    kept = default.state()
    assert kept.keys() == ours.state().keys()
    assert all(torch.equal(value, kept[key]) for key, value in ours.state().items())


def newton_schulz(gradient: torch.Tensor, steps: int) -> torch.Tensor:
    """X <- a X + b (X X^T) X + c (X X^T)^2 X from X = G / |G|, in float64, wide matrices as they are."""
    x = gradient.double()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm()
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x.T if tall else x


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_its_equations_in_float64(nesterov: bool) -> None:
    """m <- b m + (1 - b) g; W <- (1 - lr decay) W - 0.2 sqrt(max(rows, columns)) lr NS(m, or g one update ahead)."""
    part = Muon(momentum=0.9, nesterov=nesterov, weight_decay=0.5)
    one = trained(part, grad_clip=1e6)
    weights = [matrix.detach().double().clone() for matrix in one.adapter.matrices]
    means = [torch.zeros_like(each) for each in weights]
    changes = [torch.zeros_like(each) for each in weights]
    for step in range(3):
        gradients = Adapter(one.adapter.slots, StepRng(step).normal("gradient", one.adapter.flat)).matrices
        update(one, step)
        for i, gradient in enumerate(gradients):
            means[i] = 0.9 * means[i] + 0.1 * gradient.double()
            ahead = 0.1 * gradient.double() + 0.9 * means[i] if nesterov else means[i]
            change = 0.2 * max(gradient.shape) ** 0.5 * 1e-2 * newton_schulz(ahead, 5)
            changes[i] += change
            weights[i] = weights[i] * (1 - 1e-2 * 0.5) - change
    for ours, expected, change in zip(one.adapter.matrices, weights, changes, strict=True):
        assert (ours.detach().double() - expected).norm() < 0.03 * change.norm()  # bfloat16 within the iteration


def test_muon_leaves_a_matrix_without_gradient_alone() -> None:
    """At the first update of a fresh LoRA B is zero, and so is the gradient of A."""
    one = trained(Muon(weight_decay=0.0))
    before = one.adapter.flat.clone()
    one.update(0)
    assert torch.equal(one.adapter.flat, before)


@pytest.mark.parametrize("name", sorted(_classes()))
def test_every_class_of_torch_keeps_the_rules(name: str) -> None:
    part = TorchClass(name)
    assert list(part.check()) == []
    assert problems_of("optimizer", part, checks_imports=False) == []


def test_classes_for_another_loop_are_refused() -> None:
    for name in UNSUITED:
        assert list(TorchClass(name).check()) == [f"torch.optim.{name} cannot train here: {UNSUITED[name]}"]
        assert name not in _classes()


@pytest.mark.parametrize(("name", "kept"), [("SGD", 0.0), ("AdamW", 2.0), ("RMSprop", 1.0), ("Muon", 1.0)])
def test_the_state_of_a_class_is_counted(name: str, kept: float) -> None:
    assert TorchClass(name).state_per_weight() == kept
    assert TorchClass("SGD", {"momentum": 0.9}).state_per_weight() == 1.0


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("Optimizer", {}, "torch.optim has no optimizer 'Optimizer'"),
        ("lr_scheduler.StepLR", {}, "torch.optim has no optimizer 'lr_scheduler.StepLR'"),
        ("adamw", {}, "torch.optim has no optimizer 'adamw'; did you mean 'AdamW'?"),
        ("", {}, "torch.optim has no optimizer ''"),
        ("SGD", {"momentun": 0.9}, "args: torch.optim.SGD takes no 'momentun'; did you mean 'momentum'?"),
        ("SGD", {"lr": 0.1}, "args: lr is not given here; the rate is train.lr and critic.lr"),
        ("SGD", {"params": []}, "args: params is not given here"),
        ("SGD", {"momentum": -1}, "args: torch.optim.SGD refuses them: ValueError: Invalid momentum value: -1"),
        ("SGD", {"momentum": "much"}, "args: torch.optim.SGD refuses them: TypeError"),
        ("Adam", {"betas": [0.9]}, "args: torch.optim.Adam refuses them: "),
        ("Muon", {"ns_steps": 100_000_000}, "args: torch.optim.Muon refuses them: ValueError: Number of steps"),
    ],
)
def test_what_torch_does_not_have_or_take_is_told(name: str, args: dict[str, Any], sentence: str) -> None:
    told = list(TorchClass(name, args).check())
    assert len(told) == 1
    assert told[0].startswith(sentence)


def test_a_torch_without_muon_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(Muon().check()) == []
    monkeypatch.delattr(torch.optim, "Muon")
    assert list(Muon().check()) == [f"torch {torch.__version__} has no Muon; torch 2.9 and later have it"]

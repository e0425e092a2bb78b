"""PEFT's LoRA dropout by the operation: PEFT's own layers with the same mask in place of torch's dropout."""

from __future__ import annotations

import pytest
import torch
from clora_triton.op import lora_linear
from clora_triton.peft import mixed_adapters
from clora_triton.tests.peft_models import X, gradients, pair, same, watched
from peft import PeftModel
from torch import nn
from torch.utils.checkpoint import checkpoint

NAMES = ["two", "__base__", "one", "one"]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of all inputs that reached our operation."""
    seen: list[torch.Size] = []
    monkeypatch.setattr("clora_triton.peft.lora_linear", watched(seen))
    return seen


class Masked(nn.Module):
    """What torch's dropout would do if it drew our mask."""

    def __init__(self, p: float, seed: torch.Tensor) -> None:
        super().__init__()
        self.p, self.seed = p, seed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = torch.eye(x.shape[-1])
        nothing = torch.zeros_like(one)
        table = [(x.shape[0], one, one, 1.0)]
        return x * lora_linear(torch.ones_like(x), nothing, None, table, dropout=self.p, seed=self.seed)


def layers(model: PeftModel) -> list[nn.Module]:
    return [model.base_model.model.first, model.base_model.model.second]


def mask_as_ours(model: PeftModel, seed: int) -> None:
    """Give PEFT's layers the masks that ours draw, one after the other, after torch.manual_seed(seed)."""
    torch.manual_seed(seed)
    for layer in layers(model):
        drawn = torch.randint(2**63 - 1, ())
        for name, dropout in layer.lora_dropout.items():
            layer.lora_dropout[name] = Masked(dropout.p, drawn)


def seeded(model: nn.Module) -> torch.Tensor:
    torch.manual_seed(5)
    return model(X)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_in_training_is_ours_and_differs_from_peft_s_by_the_mask_alone(p: float, taken: list) -> None:
    theirs, ours = pair(lora_dropout=p)
    mask_as_ours(theirs, 5)
    found = same(theirs.train(), ours.train(), seeded)
    assert len(taken) == 2
    assert len([name for name in found if "lora_" in name]) == 4
    ours.eval()
    assert not torch.allclose(ours(X), found["y"], atol=1e-3)


def test_manual_seed_governs_the_mask_and_every_call_has_another() -> None:
    _, ours = pair(lora_dropout=0.5)
    ours.train()
    first, again = seeded(ours), seeded(ours)
    assert torch.equal(first, again)
    assert not torch.allclose(ours(X), first, atol=1e-3)


def test_outside_training_nothing_is_drawn(taken: list[torch.Size]) -> None:
    theirs, ours = pair(lora_dropout=0.5)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    torch.testing.assert_close(ours.eval()(X), theirs.eval()(X), rtol=1e-4, atol=1e-5)
    assert torch.equal(state, torch.get_rng_state())
    assert len(taken) == 2


def test_a_mixed_batch_has_each_adapter_s_own_dropout(taken: list[torch.Size]) -> None:
    theirs, ours = pair("one", "two", lora_dropout=0.5)
    for model in (theirs, ours):
        for layer in layers(model):
            layer.lora_dropout["two"].p = 0.1
        model.train()
    ours.set_requires_grad(["one", "two"])
    with mixed_adapters(ours, NAMES):
        mine = gradients(ours, seeded)
    assert len(taken) == 2
    mask_as_ours(theirs, 5)
    expected: dict[str, torch.Tensor] = {}
    for name in ("one", "two"):
        rows = [row for row, used in enumerate(NAMES) if used == name]
        theirs.set_adapter(name)
        y = theirs(X)[rows]
        torch.testing.assert_close(mine["y"][rows], y.detach(), rtol=1e-4, atol=1e-5)
        theirs.zero_grad()
        (y.square().sum() / mine["y"].numel() + y[..., 0].sum()).backward()
        expected |= {key: p.grad.clone() for key, p in theirs.named_parameters() if p.grad is not None}
    assert expected.keys() == mine.keys() - {"y"}
    for key, value in expected.items():
        torch.testing.assert_close(mine[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_forward_draws_the_same_mask_again(reentrant: bool) -> None:
    _, ours = pair(lora_dropout=0.5)
    ours.train()
    x = X.clone().requires_grad_()  # what the reentrant kind needs in order to give gradients

    def checkpointed(model: nn.Module) -> torch.Tensor:
        torch.manual_seed(5)
        y = checkpoint(model, x, use_reentrant=reentrant)
        torch.randn(3)
        return y

    plain, again = gradients(ours, seeded), gradients(ours, checkpointed)
    assert plain.keys() == again.keys()
    assert all(torch.equal(again[name], value) for name, value in plain.items())


def test_dropouts_that_do_more_are_peft_s(taken: list[torch.Size]) -> None:
    theirs, ours = pair(lora_dropout=0.5)
    for model in (theirs.train(), ours.train()):
        first, second = layers(model)
        first.lora_dropout["default"].register_forward_hook(lambda module, args, y: y * 2)
        second.lora_dropout["default"].p = 1.0
    same(theirs, ours, seeded)
    assert not taken


def test_compiles_in_one_graph_with_new_masks_from_call_to_call() -> None:
    _, ours = pair(lora_dropout=0.5)
    layer = ours.base_model.model.second.train()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 20)
    runs = []
    for call in (layer, compiled):
        torch.manual_seed(5)
        runs.append([call(x), call(x)])
    assert not torch.equal(*runs[1])
    for eager, found in zip(*runs, strict=True):
        torch.testing.assert_close(found, eager, rtol=1e-4, atol=1e-5)

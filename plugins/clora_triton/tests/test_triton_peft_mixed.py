"""PEFT with the kernels on: rows with adapters of their own, also in training; types, autocast and torch.compile."""

from __future__ import annotations

import warnings

import pytest
import torch
from clora_triton.peft import mixed_adapters
from clora_triton.tests.peft_models import X, gradients, pair, same, watched
from torch import nn

NAMES = ["two", "__base__", "one", "one"]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of all inputs that reached our operation."""
    seen: list[torch.Size] = []
    monkeypatch.setattr("clora_triton.peft.lora_linear", watched(seen))
    return seen


def test_mixed_rows_outside_training_as_peft_has_them(taken: list[torch.Size]) -> None:
    theirs, ours = pair("one", "two")
    with torch.no_grad():
        expected = theirs.eval()(X, adapter_names=NAMES)
        torch.testing.assert_close(ours.eval()(X, adapter_names=NAMES), expected, rtol=1e-4, atol=1e-5)
    assert len(taken) == 2
    with pytest.raises(ValueError, match="same as the number of inputs, but got 3 and 4"):
        ours(X, adapter_names=NAMES[:3])


@pytest.mark.parametrize("checkpointed", [False, True])
def test_mixed_rows_train_as_each_adapter_does_alone(checkpointed: bool, taken: list[torch.Size]) -> None:
    theirs, ours = pair("one", "two")
    with pytest.raises(ValueError, match="training mode"):
        ours.train()(X, adapter_names=NAMES)
    ours.set_requires_grad(["one", "two"])

    def run(model: nn.Module) -> torch.Tensor:
        if checkpointed:
            return torch.utils.checkpoint.checkpoint(model, X, use_reentrant=False)
        return model(X)

    with mixed_adapters(ours, NAMES):
        mine = gradients(ours, run)
    assert len(taken) == 2 + 2 * checkpointed
    expected: dict[str, torch.Tensor] = {}
    for name in ("one", "two", "__base__"):
        rows = [row for row, used in enumerate(NAMES) if used == name]
        if name != "__base__":
            theirs.set_adapter(name)
        with theirs.disable_adapter() if name == "__base__" else warnings.catch_warnings():
            y = theirs.train()(X[rows])
        torch.testing.assert_close(mine["y"][rows], y.detach(), rtol=1e-4, atol=1e-5)
        if name != "__base__":
            theirs.zero_grad()
            (y.square().sum() / mine["y"].numel() + y[..., 0].sum()).backward()
            expected |= {key: p.grad.clone() for key, p in theirs.named_parameters() if p.grad is not None}
    assert expected.keys() == mine.keys() - {"y"}
    for key, value in expected.items():
        torch.testing.assert_close(mine[key], value, rtol=1e-4, atol=1e-5)


def test_mixed_rows_with_unknown_adapters_are_refused_with_the_nearest_name() -> None:
    _, ours = pair("anime", "two")
    with (
        pytest.raises(ValueError, match="'anim' \\(is 'anime' meant\\?\\); there are anime, two"),
        mixed_adapters(ours, ["anim", "two"]),
    ):
        pass


@pytest.mark.parametrize(("kind", "factors"), [(torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_half_precision_errs_no_more_than_peft(kind: torch.dtype, factors: torch.dtype) -> None:
    exact, _ = pair()
    theirs, ours = (model.to(kind) for model in pair())
    for model in (theirs, ours):
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.data = value.data.to(factors)
    found = [gradients(model, lambda model: model(X.to(kind))) for model in (theirs, ours)]
    reference = gradients(exact.double(), lambda model: model(X.to(kind).double()))
    for name, value in reference.items():
        errors = [float((each[name].double() - value).norm()) for each in found]
        assert errors[1] <= 1.5 * errors[0] + 0.02 * float(value.norm()), name
        assert found[1][name].dtype == found[0][name].dtype


def test_autocast_computes_in_its_type(taken: list[torch.Size]) -> None:
    theirs, ours = pair()
    with torch.autocast("cpu", torch.bfloat16):
        found = [gradients(model, lambda model: model(X)) for model in (theirs, ours)]
    assert len(taken) == 2
    assert found[1]["y"].dtype == torch.bfloat16
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=0.05, atol=0.03 * float(value.abs().max()))


def test_odd_inputs_are_peft_s(taken: list[torch.Size]) -> None:
    theirs, ours = pair()
    layers = [model.base_model.model.first for model in (theirs, ours)]
    for x in (torch.zeros(0, 12), torch.ones(12)):
        torch.testing.assert_close(layers[1](x), layers[0](x))
    assert not taken


def test_a_base_whose_bias_learns() -> None:
    theirs, ours = pair(bias="all")
    assert "base_model.model.first.base_layer.bias" in same(theirs, ours, lambda model: model(X))


def test_compiles_in_one_graph() -> None:
    theirs, ours = pair()
    compiled = torch.compile(ours.base_model.model.second, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 20)
    torch.testing.assert_close(compiled(x), theirs.base_model.model.second(x), rtol=1e-4, atol=1e-5)

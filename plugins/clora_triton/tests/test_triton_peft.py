"""PEFT with the kernels on computes what PEFT computes, and leaves to PEFT what is not ours."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import peft
import pytest
import torch
from clora_triton.peft import Linear, use_with_peft
from clora_triton.tests.peft_models import Small, X, config, pair, same, watched
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners import lora
from torch import nn


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of all inputs that reached our operation."""
    seen: list[torch.Size] = []
    monkeypatch.setattr("clora_triton.peft.lora_linear", watched(seen))
    return seen


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"r": 1}, {"lora_dropout": 0.5}, {"target_modules": "all-linear"}]
)
def test_the_plain_cases_are_ours_and_agree(options: dict[str, object], taken: list[torch.Size]) -> None:
    theirs, ours = pair(**options)
    found = same(theirs.eval(), ours.eval(), lambda model: model(X))
    assert len(taken) == 2
    assert len([name for name in found if "lora_" in name]) == 4


def test_the_trained_adapter_is_the_same_file(tmp_path: Path) -> None:
    theirs, ours = pair()
    for model, folder in ((theirs, "theirs"), (ours, "ours")):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(X).square().mean().backward()
            optimizer.step()
        model.save_pretrained(str(tmp_path / folder))
    with use_with_peft():
        reloaded = PeftModel.from_pretrained(copy.deepcopy(theirs.unload()), str(tmp_path / "ours"))
    stock = PeftModel.from_pretrained(copy.deepcopy(reloaded).unload(), str(tmp_path / "theirs"))
    assert type(reloaded.base_model.model.first) is Linear
    assert type(stock.base_model.model.first) is lora.Linear
    torch.testing.assert_close(reloaded(X), stock(X), rtol=1e-4, atol=1e-5)
    assert (tmp_path / "ours/adapter_config.json").read_text() == (tmp_path / "theirs/adapter_config.json").read_text()


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"lora_bias": True, "target_modules": ["first"]},
        {"target_modules": ["conv"]},
        {"target_modules": ["table"]},
        {"use_dora": True, "lora_dropout": 0.5},
    ],
)
def test_what_is_not_ours_goes_through_peft(options: dict[str, object], taken: list[torch.Size]) -> None:
    def run(model: nn.Module) -> torch.Tensor:
        torch.manual_seed(5)
        return model(X)

    theirs, ours = pair(**options)
    same(theirs, ours, run)
    assert not taken


def test_several_active_adapters_and_none(taken: list[torch.Size]) -> None:
    theirs, ours = pair("one", "two")
    for model in (theirs, ours):
        model.base_model.set_adapter(["one", "two"])
    same(theirs, ours, lambda model: model(X))
    assert not taken
    for model in (theirs, ours):
        model.set_adapter("two")
    same(theirs, ours, lambda model: model(X))
    assert len(taken) == 2
    with theirs.disable_adapter(), ours.disable_adapter(), torch.no_grad():
        torch.testing.assert_close(ours(X), theirs(X), rtol=0, atol=0)
    assert len(taken) == 2


def test_merged_and_unmerged(taken: list[torch.Size]) -> None:
    theirs, ours = pair()
    for model in (theirs, ours):
        model.merge_adapter()
    with torch.no_grad():
        torch.testing.assert_close(ours(X), theirs(X))
    assert not taken
    for model in (theirs, ours):
        model.unmerge_adapter()
    same(theirs, ours, lambda model: model(X))
    torch.testing.assert_close(ours.merge_and_unload()(X), theirs.merge_and_unload()(X))


def test_hooked_frozen_and_foreign_linears_are_peft_s(taken: list[torch.Size]) -> None:
    theirs, ours = pair()
    seen: list[int] = []
    for model in (theirs, ours):
        model.base_model.model.first.base_layer.register_forward_hook(lambda *_: seen.append(1))
        torch.nn.utils.parametrizations.weight_norm(model.base_model.model.second.base_layer)
    same(theirs, ours, lambda model: model(X))
    assert len(seen) == 2
    assert not taken


class Odd(nn.Linear):
    """A linear that computes something else, as quantised ones do."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * 2


def test_subclasses_of_linear_and_the_user_s_own_modules_are_left() -> None:
    class Mine(lora.Linear):
        pass

    wanted = config()
    with use_with_peft():
        wanted._register_custom_module({Odd: Mine})
        network = nn.ModuleDict({"first": Odd(4, 4), "second": nn.Linear(4, 4)})
        model = peft.inject_adapter_in_model(wanted, network)
        other = peft.inject_adapter_in_model(config(), nn.ModuleDict({"first": Odd(4, 4), "second": nn.Linear(4, 4)}))
    assert type(model["first"]) is Mine
    assert type(model["second"]) is Linear
    assert type(other["first"]) is lora.Linear
    assert wanted._custom_modules == {Odd: Mine}


def test_on_for_one_configuration_for_a_model_for_all_and_off_again() -> None:
    def first(wanted: LoraConfig) -> type:
        return type(get_peft_model(Small(), wanted).base_model.model.first)

    early = config()
    with use_with_peft():
        with use_with_peft():
            assert first(config()) is Linear
        assert first(early) is Linear
    assert first(early) is first(config()) is lora.Linear
    one = config()
    switch = use_with_peft(one)
    assert first(one) is Linear
    assert first(config()) is lora.Linear
    switch.off()
    assert first(one) is lora.Linear
    model, _ = pair()
    before = model(X)
    with use_with_peft(model):
        assert type(model.base_model.model.first) is Linear
        torch.testing.assert_close(model(X), before, rtol=1e-4, atol=1e-5)
    assert type(model.base_model.model.first) is lora.Linear
    with pytest.raises(TypeError, match="expected a LoraConfig, a module or nothing, got int"):
        use_with_peft(3)  # type: ignore[arg-type]


def test_copies_and_pickles() -> None:
    theirs, ours = pair()
    copied, pickled = copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))
    assert type(copied.base_model.model.first) is Linear
    assert type(pickled.base_model.model.first) is lora.Linear
    assert repr(ours) == repr(theirs)
    for model in (copied, pickled):
        same(theirs, model, lambda model: model(X))
    ours.base_model.model.first.lora_B["default"].weight.data.zero_()
    torch.testing.assert_close(copied(X), theirs(X), rtol=1e-4, atol=1e-5)

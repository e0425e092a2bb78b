"""PEFT with the kernels on computes what PEFT computes, and leaves to PEFT what is not ours."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from clora_triton.peft import Linear, mixed_adapters, use_with_peft
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners import lora
from torch import nn


class Small(nn.Module):
    """Two linears, one without bias, and an embedding and a convolution that are not ours."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20)
        self.second = nn.Linear(20, 7, bias=False)
        self.table = nn.Embedding(5, 12)
        self.conv = nn.Conv1d(12, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.conv((x + self.table(torch.tensor(0))).mT).mT
        return self.second(torch.tanh(self.first(x)))


def config(**options: object) -> LoraConfig:
    settings: dict[str, object] = {"r": 3, "lora_alpha": 5, "target_modules": ["first", "second"]}
    return LoraConfig(**{**settings, "init_lora_weights": False, **options})


def pair(*names: str, **options: object) -> tuple[PeftModel, PeftModel]:
    """The same model twice with the same adapters: PEFT's layers, and ours."""
    torch.manual_seed(0)
    base = Small()
    made: list[PeftModel] = []
    for ours in (False, True):
        torch.manual_seed(1)
        switch = use_with_peft() if ours else None
        model = get_peft_model(copy.deepcopy(base), config(**options), adapter_name=names[0] if names else "default")
        for name in names[1:]:
            model.add_adapter(name, config(**{**options, "r": 2}))
        if switch is not None:
            switch.off()
        made.append(model)
    return made[0], made[1]


def gradients(model: nn.Module, run: Callable[[nn.Module], torch.Tensor]) -> dict[str, torch.Tensor]:
    """The output and the gradient of every parameter that has one, of a loss that is not flat."""
    y = run(model)
    model.zero_grad()
    (y.square().mean() + y[..., 0].sum()).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"y": y.detach(), **grads}


def same(peft_model: nn.Module, ours: nn.Module, run: Callable[[nn.Module], torch.Tensor]) -> dict[str, torch.Tensor]:
    theirs, mine = gradients(peft_model, run), gradients(ours, run)
    assert theirs.keys() == mine.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            mine[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    return mine


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of all inputs that reached our operation."""
    from clora_triton import peft as ours

    seen: list[torch.Size] = []
    real = ours.lora_linear

    def watched(x: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(x.shape)
        return real(x, *rest)

    monkeypatch.setattr(ours, "lora_linear", watched)
    return seen


X = torch.randn(4, 6, 12, generator=torch.Generator().manual_seed(3))


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
    ],
)
def test_what_is_not_ours_goes_through_peft(options: dict[str, object], taken: list[torch.Size]) -> None:
    theirs, ours = pair(**options)
    same(theirs, ours, lambda model: model(X))
    assert not taken


def test_dropout_in_training_is_peft_s_with_peft_s_random_numbers(taken: list[torch.Size]) -> None:
    def run(model: nn.Module) -> torch.Tensor:
        torch.manual_seed(5)
        return model(X)

    theirs, ours = pair(lora_dropout=0.5)
    same(theirs.train(), ours.train(), run)
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


NAMES = ["two", "__base__", "one", "one"]


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

"""One frozen network, many adapters: each row meets its own, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter, stack
from clora.diffusion.rng import StepRng

SHAPES = {"first": (4, 6), "block.second": (6, 6), "last": (6, 3)}


class Network(nn.Module):
    """Three linears that can carry adapters and one that cannot; `doubled` stacks its batch inside."""

    def __init__(self, doubled: bool = False) -> None:
        super().__init__()
        self.doubled = doubled
        self.first = nn.Linear(4, 6)
        self.block = nn.Module()
        self.block.second = nn.Linear(6, 6)
        self.plain = nn.Linear(6, 6)
        self.last = nn.Linear(6, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        if self.doubled:
            real, zero = self.block.second(torch.cat([x, torch.zeros_like(x)])).chunk(2)
            x = real - zero
        else:
            x = self.block.second(x)
        return self.last(torch.tanh(self.plain(x)))


def network(doubled: bool = False) -> Network:
    torch.manual_seed(0)
    return Network(doubled).double()


def trained_adapter(name: str, *modules: str, rank: int = 2, trainable: bool = False) -> Adapter:
    """An adapter whose B is not zero, on some modules or on all."""
    shapes = {module: SHAPES[module] for module in modules or SHAPES}
    made = Adapter.fresh(shapes, rank, 2.0 * rank, StepRng(0).named(name), trainable=trainable)
    made.flat.copy_(StepRng(0).normal(name, made.flat))
    return made


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.fixture
def adapted() -> AdaptedNetwork:
    """Adapters `one` on everything, `two` on one linear and with another rank, `zero` fresh."""
    made = AdaptedNetwork(network(), tuple(SHAPES))
    made.add("one", trained_adapter("one"))
    made.add("two", trained_adapter("two", "block.second", rank=3))
    made.add("zero", Adapter.fresh(SHAPES, 2, 2.0, StepRng(0)))
    return made


def merged(adapter: Adapter | None, doubled: bool = False) -> Network:
    """A plain network whose weights hold W + scale B A."""
    plain = network(doubled)
    with torch.no_grad():
        for module, (a, b, scale) in (adapter.factors if adapter else {}).items():
            plain.get_submodule(module).weight += scale * (b.detach().double() @ a.detach().double())
    return plain


def run(adapted: AdaptedNetwork, x: torch.Tensor, *names: str | None) -> np.ndarray:
    with adapted.rows(names), torch.no_grad():
        return adapted.network(x).numpy()


def test_each_row_equals_a_network_with_the_adapter_merged_in(adapted, x):
    names = ("one", None, "two", "zero", "one")
    expected = [
        merged(adapted.adapters[name] if name else None)(x[i : i + 1])[0].detach().numpy()
        for i, name in enumerate(names)
    ]
    np.testing.assert_allclose(run(adapted, x, *names), np.stack(expected), atol=1e-12)


def test_rows_without_a_middle_axis_work_too(adapted, x):
    flat = x[:, 0]
    expected = merged(adapted.adapters["one"])(flat).detach().numpy()
    np.testing.assert_allclose(run(adapted, flat, *["one"] * 5), expected, atol=1e-12)


@pytest.mark.parametrize("names", [(None,) * 5, ("zero",) * 5, ("zero", None, "zero", None, None)])
def test_no_adapter_and_a_fresh_one_are_the_base_to_the_last_bit(adapted, x, names):
    base = network()(x).detach().numpy()
    np.testing.assert_array_equal(run(adapted, x, *names), base)


def test_outside_of_rows_the_network_is_the_base(adapted, x):
    run(adapted, x, *["one"] * 5)
    assert torch.equal(adapted.network(x), network()(x))


def test_rows_nest_and_are_restored_after_an_error(adapted, x):
    with adapted.rows(["one"] * 5):
        with pytest.raises(ZeroDivisionError), adapted.rows([None] * 5):
            raise ZeroDivisionError
        after = adapted.network(x).detach().numpy()
    np.testing.assert_array_equal(after, run(adapted, x, *["one"] * 5))


def test_a_row_never_changes_when_another_rows_adapter_does(adapted, x):
    before = run(adapted, x, "one", "one", None, "two", "two")
    adapted.adapters["two"].flat.mul_(-3.0)
    after = run(adapted, x, "one", "one", None, "two", "two")
    np.testing.assert_array_equal(after[:3], before[:3])
    assert (after[3:] != before[3:]).all()


def test_linears_that_an_adapter_does_not_cover_are_the_base(adapted, x):
    first = adapted.linears["first"]
    with adapted.rows(["two"] * 5):
        assert torch.equal(first(x), first.base(x))
        assert torch.equal(adapted.network.plain(torch.ones(6).double()), network().plain(torch.ones(6).double()))


def test_gradients_go_to_the_rows_own_adapter_and_nowhere_else(x):
    adapted = AdaptedNetwork(network(), tuple(SHAPES))
    student = adapted.add("student", trained_adapter("student", trainable=True))
    critic = adapted.add("critic", trained_adapter("critic", trainable=True))
    adapted.add("frozen", trained_adapter("frozen"))
    with adapted.rows(["student", "frozen", None, "frozen", "student"]):
        adapted.network(x).square().sum().backward()
    assert not critic.flat_grad.any()
    assert all(parameter.grad is None for parameter in adapted.network.parameters())

    # the same rows alone, through plain autograd on W + scale B A
    plain = network().requires_grad_(False)
    leaves = {
        module: (a.detach().double().requires_grad_(), b.detach().double().requires_grad_(), scale)
        for module, (a, b, scale) in student.factors.items()
    }
    weights = {
        f"{module}.weight": plain.get_submodule(module).weight + s * b @ a for module, (a, b, s) in leaves.items()
    }
    torch.func.functional_call(plain, weights, (x[[0, 4]],)).square().sum().backward()
    expected = torch.cat([part.grad.flatten() for a, b, _ in leaves.values() for part in (a, b)])
    np.testing.assert_allclose(student.flat_grad.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_an_unknown_name_is_an_error_and_not_the_base(adapted):
    with pytest.raises(KeyError, match="no adapter named 'thre'; there are one, two, zero"), adapted.rows(["thre"]):
        pass
    with pytest.raises(KeyError, match="there are none"), AdaptedNetwork(network(), []).rows(["x"]):
        pass


def test_a_network_that_stacks_its_batch_repeats_the_rows(x):
    """Qwen-Image-Edit 2511 runs its modulation on the batch and, behind it, on the batch at time zero."""
    adapted = AdaptedNetwork(network(doubled=True), tuple(SHAPES))
    adapted.add("one", trained_adapter("one"))
    adapted.add("two", trained_adapter("two", rank=3))
    names = ("one", "one", None, "two", None)
    expected = [
        merged(adapted.adapters[name] if name else None, doubled=True)(x[i : i + 1])[0].detach().numpy()
        for i, name in enumerate(names)
    ]
    np.testing.assert_allclose(run(adapted, x, *names), np.stack(expected), atol=1e-12)


@pytest.mark.parametrize("rows", [3, 4, 6])
def test_a_batch_that_does_not_fit_the_rows_is_an_error(adapted, x, rows):
    with adapted.rows(["one"] * rows), pytest.raises(ValueError, match=f"5 rows .* set for {rows}"):
        adapted.network(x)


def test_a_new_adapter_under_an_old_name_replaces_all_of_it(adapted, x):
    adapted.add("one", trained_adapter("other", "last"))
    expected = merged(adapted.adapters["one"])(x).detach().numpy()
    np.testing.assert_allclose(run(adapted, x, *["one"] * 5), expected, atol=1e-12)


def test_what_cannot_carry_an_adapter_is_refused():
    with pytest.raises(TypeError, match="target block is a Module, neither a Linear nor a Conv2d"):
        AdaptedNetwork(network(), ["block"])
    with pytest.raises(AttributeError, match="third"):
        AdaptedNetwork(network(), ["block.third"])
    small = AdaptedNetwork(network(), ["first"])
    with pytest.raises(ValueError, match=r"covers 2 modules that the network lacks, such as block\.second"):
        small.add("one", trained_adapter("one"))


def test_the_base_is_frozen(adapted):
    assert not any(parameter.requires_grad for parameter in adapted.network.parameters())


def test_a_stacked_adapter_does_what_both_do(adapted, x):
    adapted.add("both", stack(adapted.adapters["one"], adapted.adapters["two"]))
    plain = merged(adapted.adapters["one"])
    a, b, scale = adapted.adapters["two"].factors["block.second"]
    with torch.no_grad():
        plain.block.second.weight += scale * (b.double() @ a.double())
    np.testing.assert_allclose(run(adapted, x, *["both"] * 5), plain(x).detach().numpy(), atol=1e-5)


def test_one_adapter_gives_what_pefts_own_layers_give(x):
    """PEFT's LoRA with the same factors on the same network: outputs and gradients."""
    ours = AdaptedNetwork(network(), tuple(SHAPES))
    student = ours.add("student", trained_adapter("student", rank=2, trainable=True))
    theirs = network()
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=4, target_modules=list(SHAPES)), theirs)
    for module, (a, b, _) in student.factors.items():
        layer = theirs.get_submodule(module)
        layer.lora_A["default"].weight.data = a.detach().double()
        layer.lora_B["default"].weight.data = b.detach().double()
    with ours.rows(["student"] * 5):
        y = ours.network(x)
    expected = theirs(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    for module, (a, b, _) in student.factors.items():
        layer = theirs.get_submodule(module)
        torch.testing.assert_close(a.grad.double(), layer.lora_A["default"].weight.grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(b.grad.double(), layer.lora_B["default"].weight.grad, rtol=1e-4, atol=1e-4)

"""An adapter is one flat tensor: views share its storage, gradients land in one flat gradient."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from clora.adapters.adapter import Adapter, stack
from clora.diffusion.rng import StepRng

SHAPES = {"a.to_q": (6, 5), "a.net.2": (5, 7), "out": (3, 3)}


def fresh(**more) -> Adapter:
    return Adapter.fresh(SHAPES, rank=2, alpha=4.0, rng=StepRng(0).named("student"), **more)


def random_factors(seed: int, ranks: dict[str, int]) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        module: (
            torch.randn(rank, SHAPES[module][0], generator=generator),
            torch.randn(SHAPES[module][1], rank, generator=generator),
            0.5 * seed,
        )
        for module, rank in ranks.items()
    }


def delta(adapter: Adapter, module: str) -> np.ndarray:
    """scale B A in float64."""
    a, b, scale = adapter.factors[module]
    return scale * b.detach().double().numpy() @ a.detach().double().numpy()


def test_a_fresh_adapter_has_the_shapes_the_scale_and_a_zero_b():
    adapter = fresh()
    assert set(adapter.factors) == set(SHAPES)
    for module, (inputs, outputs) in SHAPES.items():
        a, b, scale = adapter.factors[module]
        assert a.shape == (2, inputs)
        assert b.shape == (outputs, 2)
        assert scale == 4.0 / 2
        assert not b.any()
        assert a.abs().min() > 0
    assert adapter.flat.numel() == sum(2 * (inputs + outputs) for inputs, outputs in SHAPES.values())


def test_a_is_drawn_as_peft_draws_it():
    """PEFT: kaiming_uniform with a = sqrt(5), that is U(-1/sqrt(in), 1/sqrt(in)); compared with PEFT's own layer."""
    inputs, rank = 400, 100
    ours, _, scale = Adapter.fresh({"x": (inputs, 8)}, rank, 50.0, StepRng(0)).factors["x"]
    network = nn.Sequential(nn.Linear(inputs, 8))
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=50, target_modules=["0"]), network)
    theirs = network[0].lora_A["default"].weight
    for a in (ours.detach(), theirs.detach()):
        assert a.abs().max().item() == pytest.approx(1 / sqrt(inputs), rel=1e-3)
        assert a.abs().max().item() <= 1 / sqrt(inputs)
        assert a.mean().item() == pytest.approx(0.0, abs=1e-3)
        assert a.std().item() == pytest.approx(1 / sqrt(3 * inputs), rel=0.02)
    assert scale == network[0].scaling["default"]


def test_the_initial_values_come_from_the_draws_and_the_module_alone():
    assert torch.equal(fresh().flat, fresh().flat)
    other = Adapter.fresh(SHAPES, 2, 4.0, StepRng(1).named("student"))
    assert not torch.equal(fresh().flat, other.flat)
    backwards = Adapter.fresh(dict(reversed(SHAPES.items())), 2, 4.0, StepRng(0).named("student"))
    for module in SHAPES:
        assert torch.equal(fresh().factors[module][0], backwards.factors[module][0])


def test_views_share_the_flat_tensors_storage():
    adapter = fresh()
    adapter.flat.copy_(torch.arange(adapter.flat.numel(), dtype=torch.float32))
    together = torch.cat([part.detach().flatten() for a, b, _ in adapter.factors.values() for part in (a, b)])
    assert torch.equal(together, adapter.flat)
    assert torch.equal(adapter.parameter.detach(), adapter.flat)
    with torch.no_grad():
        adapter.factors["out"][1].fill_(-1.0)
    assert adapter.flat[-6:].tolist() == [-1.0] * 6


def test_gradients_gather_in_the_flat_gradient():
    adapter = fresh()
    for _ in range(2):
        sum((i + 1) * (a.sum() + 10 * b.sum()) for i, (a, b, _) in enumerate(adapter.factors.values())).backward()
    expected = [
        2.0 * (i + 1) * factor
        for i, (a, b, _) in enumerate(adapter.factors.values())
        for part, factor in ((a, 1), (b, 10))
        for _ in range(part.numel())
    ]
    assert adapter.flat_grad.tolist() == expected
    assert adapter.parameter.grad.data_ptr() == adapter.flat_grad.data_ptr()


def test_zero_grad_keeps_the_gradients_where_they_are():
    adapter = fresh()
    adapter.factors["out"][0].sum().backward()
    adapter.zero_grad()
    assert not adapter.flat_grad.any()
    adapter.factors["out"][0].sum().backward()
    assert adapter.flat_grad.sum().item() == 6.0


def test_an_optimizer_over_the_flat_tensor_moves_the_views():
    adapter = fresh()
    before = adapter.factors["out"][0].detach().clone()
    adapter.factors["out"][0].sum().backward()
    torch.optim.SGD([adapter.parameter], lr=0.5).step()
    assert torch.equal(adapter.factors["out"][0].detach(), before - 0.5)


def test_a_frozen_adapter_has_no_gradient():
    adapter = fresh(trainable=False)
    assert adapter.flat_grad is None
    assert not adapter.parameter.requires_grad
    assert not any(part.requires_grad for a, b, _ in adapter.factors.values() for part in (a, b))
    adapter.zero_grad()


def test_of_holds_copies_of_factors_of_different_ranks():
    factors = random_factors(1, {"a.to_q": 3, "out": 1})
    adapter = Adapter.of(factors)
    assert set(adapter.factors) == {"a.to_q", "out"}
    for module, (a, b, scale) in factors.items():
        assert torch.equal(adapter.factors[module][0], a)
        assert torch.equal(adapter.factors[module][1], b)
        assert adapter.factors[module][2] == scale
    factors["out"][0].zero_()
    assert adapter.factors["out"][0].all()


def test_a_copy_is_frozen_and_has_storage_of_its_own():
    adapter = fresh()
    copy = adapter.copy()
    assert torch.equal(copy.flat, adapter.flat)
    adapter.flat.zero_()
    assert copy.flat.any()
    assert copy.flat_grad is None


def test_stack_is_the_sum():
    """Different ranks, scales and modules: the sum of scale B A, wherever any part has one."""
    one, two = Adapter.of(random_factors(1, {"a.to_q": 3, "out": 1})), Adapter.of(random_factors(4, {"out": 2}))
    both = stack(one, two, fresh())
    assert set(both.factors) == set(SHAPES)
    np.testing.assert_allclose(delta(both, "a.to_q"), delta(one, "a.to_q"), atol=1e-6)
    np.testing.assert_allclose(delta(both, "out"), delta(one, "out") + delta(two, "out"), atol=1e-5)
    assert not delta(both, "a.net.2").any()
    assert both.flat_grad is None

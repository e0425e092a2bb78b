"""Packing many forwards into one batch changes no number, on a small Qwen-Image network with rows of many adapters."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from narrow_qwen import forward

from clora.adapters.evaluator import Evaluator
from clora.contracts.step import Forward


def forwards() -> list[Forward]:
    """Adapters in no order, texts of different lengths, with and without gradient."""
    return [
        forward("a", "wax", "student", None, words=5),
        forward("b", "student", "critic", words=2, grad=True),
        forward("c", "ink", words=3),
        forward("d", "student", "student", "ink", words=4, grad=True),
        forward("e", None, "wax", words=1),
    ]


def test_packed_equals_one_forward_at_a_time(backbone, adapted):
    packed = Evaluator(backbone, adapted)(forwards())
    alone = Evaluator(backbone, adapted, pack=False)(forwards())
    assert backbone.batches == [6, 5, 3, 2, 1, 3, 2]
    for one, other in zip(packed, alone, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_each_row_is_evaluated_with_its_own_adapter_and_conditions(backbone, adapted):
    """Every row alone, in a batch of its own, is the independent answer."""
    for asked, velocity in zip(forwards(), Evaluator(backbone, adapted)(forwards()), strict=True):
        for i, name in enumerate(asked.adapters):
            with adapted.rows([name]), torch.no_grad():
                row = asked.conditions.take([i])
                expected = backbone.velocity(asked.x_sigma[i : i + 1], asked.sigma[i : i + 1], row)
            torch.testing.assert_close(velocity[i : i + 1].detach(), expected, atol=2e-5, rtol=1e-4)


def test_adapters_make_a_difference(backbone, adapted):
    """Otherwise the tests above would show nothing."""
    one = forward("a", "ink", words=3)
    evaluator = Evaluator(backbone, adapted)
    made = [evaluator([evolve(one, adapters=(name,))])[0] for name in ("ink", "wax", "student", None)]
    for i in range(4):
        for j in range(i):
            assert (made[i] - made[j]).abs().max() > 1e-3


def test_gradients_are_the_same_packed_and_alone(backbone, adapted):
    grads = []
    for pack in (True, False):
        for name in ("student", "critic"):
            adapted.adapters[name].zero_grad()
        velocities = Evaluator(backbone, adapted, pack=pack)(forwards())
        sum(velocity.square().sum() for velocity in velocities if velocity.requires_grad).backward()
        grads.append([adapted.adapters[name].flat_grad.clone() for name in ("student", "critic")])
    for packed, alone in zip(*grads, strict=True):
        assert packed.any()
        torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-3)


def test_a_graph_is_kept_only_where_asked_for(backbone, adapted):
    for asked, velocity in zip(forwards(), Evaluator(backbone, adapted)(forwards()), strict=True):
        assert velocity.requires_grad == asked.grad


@pytest.mark.parametrize("pack", [True, False])
def test_a_row_costs_one_and_three_with_gradient(backbone, adapted, pack):
    evaluator = Evaluator(backbone, adapted, pack=pack)
    evaluator(forwards()[:1])
    assert evaluator.row_forwards == 3
    evaluator(forwards())
    assert evaluator.row_forwards == 3 + (6 + 3 * 5)


def test_nothing_asked_is_nothing_run(backbone, adapted):
    assert Evaluator(backbone, adapted)([]) == []
    assert backbone.batches == []

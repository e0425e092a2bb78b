"""Packing many forwards into one batch changes no number, on a small Qwen-Image network with rows of many adapters."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from diffusers import QwenImageTransformer2DModel

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.adapters.evaluator import Evaluator
from clora.contracts.values import Conditions, Forward
from clora.diffusion.rng import StepRng

CHANNELS, SIDE, WIDTH = 4, 2, 6
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
IN_A_BLOCK = [f"attn.{leaf}" for leaf in ATTENTION] + ["img_mlp.net.2", "txt_mlp.net.2", "img_mod.1", "txt_mod.1"]


class Backbone:
    """A Qwen-Image-Edit transformer of two narrow blocks: the source picture is a second frame behind the noisy one."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = QwenImageTransformer2DModel(
            patch_size=1,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=8,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(2, 2, 4),
        ).eval()
        self.batches: list[int] = []

    def velocity(self, x_sigma: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        self.batches.append(len(x_sigma))
        tokens = torch.cat([x_sigma.flatten(2), conditions.source.flatten(2)], dim=2).transpose(1, 2)
        predicted = self.network(
            hidden_states=tokens,
            encoder_hidden_states=conditions.text,
            encoder_hidden_states_mask=conditions.mask,
            timestep=sigma,
            img_shapes=[[(1, SIDE, SIDE)] * 2] * len(x_sigma),
            return_dict=False,
        )[0]
        return predicted[:, : SIDE * SIDE].transpose(1, 2).reshape(x_sigma.shape)


@pytest.fixture
def backbone() -> Backbone:
    return Backbone()


@pytest.fixture
def adapted(backbone: Backbone) -> AdaptedNetwork:
    targets = [f"transformer_blocks.{i}.{leaf}" for i in range(2) for leaf in IN_A_BLOCK]
    linears = {target: backbone.network.get_submodule(target) for target in targets}
    shapes = {target: (linear.in_features, linear.out_features) for target, linear in linears.items()}
    adapted = AdaptedNetwork(backbone.network, targets)
    for name, rank in [("student", 2), ("critic", 2), ("ink", 1), ("wax", 3)]:
        adapter = Adapter.fresh(shapes, rank, float(rank), StepRng(0).named(name), trainable=rank == 2)
        adapter.flat.copy_(0.3 * StepRng(0).normal(name, adapter.flat))
        adapted.add(name, adapter)
    return adapted


def forward(name: str, *adapters: str | None, words: int, grad: bool = False) -> Forward:
    """Random inputs whose texts are `words` long."""
    rng, rows = StepRng(1).named(name), len(adapters)
    picture = torch.empty(rows, CHANNELS, SIDE, SIDE)
    conditions = Conditions(
        rng.normal("text", torch.empty(rows, words, WIDTH)),
        torch.ones(rows, words, dtype=torch.bool),
        rng.normal("source", picture),
    )
    return Forward("student", adapters, rng.normal("x", picture), rng.uniform("sigma", rows), conditions, grad)


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

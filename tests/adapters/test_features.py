"""Features of a forward: what a block gives, row by row; a graph to the state through weights that learn nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import evolve
from narrow_qwen import SIDE, Backbone, forward

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.evaluator import Evaluator
from clora.contracts.step import Forward, Inside
from clora.errors import CloraError

DIM = 16  # two heads of eight


class Showing(Backbone):
    def blocks(self) -> list[torch.nn.Module]:
        return list(self.network.transformer_blocks)

    def features(self, output: Any, x_sigma: torch.Tensor) -> torch.Tensor:
        return output[1][:, : SIDE * SIDE]


@pytest.fixture
def showing(backbone: Backbone) -> Showing:
    backbone.__class__ = Showing
    return backbone  # pyright: ignore[reportReturnType]


def asked(*depths: float) -> list[Forward]:
    """Forwards with features at some depths, one through which a gradient passes, and one without any."""
    looking = [
        forward("a", "wax", "student", None, words=5),
        forward("b", "student", "critic", words=2),
        forward("c", "critic", "ink", words=3),
    ]
    looking = [evolve(each, depths=depths) for each in looking]
    looking[1] = evolve(looking[1], through=True, x_sigma=looking[1].x_sigma.requires_grad_())
    return [*looking, forward("d", "student", "ink", words=4)]


def by_hand(backbone: Showing, adapted: AdaptedNetwork, one: Forward, i: int, block: int) -> torch.Tensor:
    """The picture's tokens that leave a block for row i alone."""
    seen: list[Any] = []
    handle = backbone.network.transformer_blocks[block].register_forward_hook(lambda *call: seen.append(call[2]))
    with adapted.rows([one.adapters[i]]), torch.no_grad():
        backbone.velocity(one.x_sigma[i : i + 1], one.sigma[i : i + 1], one.conditions.take([i]))
    handle.remove()
    return seen[0][1][:, : SIDE * SIDE]


@pytest.mark.parametrize("pack", [True, False])
def test_every_row_has_what_its_block_gives_it_alone(showing: Showing, adapted: AdaptedNetwork, pack: bool) -> None:
    forwards = asked(1.0, 0.5, 0.3)
    answers = Evaluator(showing, adapted, pack=pack)(forwards)
    for one, answer in zip(forwards[:3], answers[:3], strict=True):
        assert isinstance(answer, Inside)
        assert answer.velocity.shape == one.x_sigma.shape
        for features, block in zip(answer.features, (1, 0, 0), strict=True):
            assert features.shape == (len(one.adapters), SIDE * SIDE, DIM)
            for i in range(len(one.adapters)):
                expected = by_hand(showing, adapted, one, i, block)
                torch.testing.assert_close(features[i : i + 1].detach(), expected, atol=2e-5, rtol=1e-4)
    assert isinstance(answers[3], torch.Tensor)
    assert not showing.network.transformer_blocks[0]._forward_hooks


def test_features_change_no_velocity(showing: Showing, adapted: AdaptedNetwork) -> None:
    forwards = asked(0.5)
    plain = Evaluator(showing, adapted)([evolve(each, depths=(), through=False) for each in forwards])
    for answer, velocity in zip(Evaluator(showing, adapted)(forwards), plain, strict=True):
        mine = answer.velocity if isinstance(answer, Inside) else answer
        torch.testing.assert_close(mine.detach(), velocity, atol=2e-5, rtol=1e-4)


def test_a_gradient_passes_through_to_the_state_and_no_weight_learns_from_it(
    showing: Showing,
    adapted: AdaptedNetwork,
) -> None:
    one = asked(0.5)[1]
    (answer,) = Evaluator(showing, adapted)([one])
    assert isinstance(answer, Inside)
    (answer.features[0].square().sum() + answer.velocity.sum()).backward()
    for name in ("student", "critic"):
        grad = adapted.adapters[name].flat_grad
        assert grad is not None
        assert not grad.any()
    found = one.x_sigma.grad
    assert found is not None

    x = one.x_sigma.detach().double().requires_grad_()
    step = torch.zeros_like(x)
    step[0, 1, 0, 1] = step[1, 2, 1, 0] = 1e-3
    values = []
    for sign in (1, -1):
        moved = evolve(one, x_sigma=(x.detach() + sign * step).float(), through=False)
        (there,) = Evaluator(showing, adapted)([moved])
        assert isinstance(there, Inside)
        values.append(float(there.features[0].double().square().sum() + there.velocity.double().sum()))
    slope = (values[0] - values[1]) / 2e-3
    assert float((found.double() * (step / 1e-3)).sum()) == pytest.approx(slope, rel=2e-2)


def test_the_trained_role_has_a_graph_to_its_weights_and_to_the_state(
    showing: Showing, adapted: AdaptedNetwork
) -> None:
    one = evolve(asked(0.5)[1], grad=True, adapters=("student", "student"))
    (answer,) = Evaluator(showing, adapted)([one])
    assert isinstance(answer, Inside)
    answer.features[0].sum().backward()
    grad = adapted.adapters["student"].flat_grad
    assert grad is not None
    assert grad.any()
    assert one.x_sigma.grad is not None


def test_a_backbone_that_shows_none_says_so(backbone: Backbone, adapted: AdaptedNetwork) -> None:
    with pytest.raises(CloraError, match=r"Backbone shows no features: it has no blocks\(\) and features\(\)"):
        Evaluator(backbone, adapted)(asked(0.5))

"""A convolution with row-wise adapters against one convolution by the changed weight, row by row, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import evolve
from torch import nn
from torch.nn.functional import conv2d

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.contracts.convolution import Convolution
from clora.diffusion.rng import StepRng
from clora.lora_io.reader import LoraDelta
from clora.toolkit.memory.checkpointing import checkpointed

SHAPES = {"down": Convolution(3, 5, (3, 3)), "head": (5, 4)}
SHAPE = {"kernel_size": (3, 3), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
ROWS = ["clay", None, "wool", "wool"]


class Small(nn.Module):
    """A convolution with a stride of its own in each direction, and a linear on its channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 5, **SHAPE)
        self.head = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.down(x).mean((2, 3)))


def adapters() -> dict[str, Adapter]:
    """Two of different ranks and scales; the first leaves the linear alone."""
    draw = torch.Generator().manual_seed(1)

    def factors(rank: int, scale: float, names: Any) -> Adapter:
        made = {}
        for name in names:
            inputs, outputs = SHAPES[name]
            a, b = torch.randn(rank, inputs, generator=draw), torch.randn(outputs, rank, generator=draw)
            made[name] = (a, b, scale)
        return Adapter.of(made)

    return {"clay": factors(2, 0.5, ["down"]), "wool": factors(3, -0.25, ["down", "head"])}


@pytest.fixture
def adapted() -> AdaptedNetwork:
    network = AdaptedNetwork(Small(), ["down", "head"])
    for name, adapter in adapters().items():
        network.add(name, adapter)
    return network


def by_hand(x: torch.Tensor, name: str | None) -> torch.Tensor:
    """The output [1, 4] for one row [1, 3, H, W] with the deltas added to the weights, in float64."""
    network = Small().double()
    weight, head = network.down.weight.detach().clone(), network.head.weight.detach().clone()
    if name is not None:
        factors = adapters()[name].factors
        a, b, scale = factors["down"]
        for o in range(5):
            for r in range(a.shape[0]):
                weight[o] += scale * b[o, r].double() * a[r].double().reshape(3, 3, 3)
        if "head" in factors:
            a, b, scale = factors["head"]
            head += scale * b.double() @ a.double()
    args = (SHAPE["stride"], SHAPE["padding"], SHAPE["dilation"])
    y = conv2d(x.double(), weight, network.down.bias.detach(), *args)
    return y.mean((2, 3)) @ head.T + network.head.bias.detach()


def test_every_row_has_its_own_adapters_convolution(adapted: AdaptedNetwork) -> None:
    x = torch.randn(4, 3, 7, 6, generator=torch.Generator().manual_seed(2))
    with adapted.rows(ROWS), torch.no_grad():
        found = adapted.network(x)
    expected = torch.cat([by_hand(x[i : i + 1], name) for i, name in enumerate(ROWS)])
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "made again in the backward pass"])
def test_gradients_are_those_of_the_changed_weight(again: bool) -> None:
    network = Small()
    adapted = AdaptedNetwork(network, ["down", "head"])
    adapted.add("clay", adapters()["clay"])
    trained = Adapter(adapters()["wool"].slots, adapters()["wool"].flat.clone(), trainable=True)
    adapted.add("wool", trained)
    x = torch.randn(4, 3, 7, 6, generator=torch.Generator().manual_seed(3)).requires_grad_()
    with adapted.rows(ROWS):
        y = checkpointed(network, x) if again else network(x)
    with adapted.rows([None]):
        y.square().sum().backward()
    grad = trained.flat_grad
    assert grad is not None

    moved = x.detach().double().requires_grad_()
    flat = adapters()["wool"].flat.double().requires_grad_()
    a, b = trained.slots["down"].views(flat)
    c, d = trained.slots["head"].views(flat)
    plain = Small().double()
    args = (SHAPE["stride"], SHAPE["padding"], SHAPE["dilation"])
    weight = plain.down.weight.detach() - 0.25 * (b @ a).reshape(5, 3, 3, 3)
    out = conv2d(moved[2:], weight, plain.down.bias.detach(), *args).mean((2, 3))
    (out @ (plain.head.weight.detach() - 0.25 * d @ c).T + plain.head.bias.detach()).square().sum().backward()
    assert flat.grad is not None
    assert moved.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(grad.double(), flat.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x.grad[2:].double(), moved.grad[2:], atol=1e-5, rtol=1e-5)


def test_a_fresh_adapter_begins_as_the_base(adapted: AdaptedNetwork) -> None:
    fresh = Adapter.fresh(SHAPES, 2, 2, StepRng(0))
    assert [tuple(each.shape) for each in fresh.matrices] == [(2, 27), (5, 2), (2, 5), (4, 2)]
    adapted.add("fresh", fresh)
    x = torch.randn(1, 3, 7, 6, generator=torch.Generator().manual_seed(4))
    with adapted.rows(["fresh"]), torch.no_grad():
        found = adapted.network(x)
    torch.testing.assert_close(found.double(), by_hand(x, None), atol=1e-6, rtol=1e-6)


def test_rows_of_another_number_are_refused(adapted: AdaptedNetwork) -> None:
    with adapted.rows(ROWS), pytest.raises(ValueError, match="3 rows reached a linear or convolution"):
        adapted.network(torch.zeros(3, 3, 7, 6))


@pytest.mark.parametrize(
    ("conv", "told"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), "a convolution of 2 groups, padded with zeros, takes no LoRA"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padded with reflect, takes no LoRA"),
        (nn.Conv1d(4, 4, 3), "target 0 is a Conv1d, neither a Linear nor a Conv2d"),
    ],
)
def test_a_convolution_whose_weight_is_no_matrix_on_patches_is_refused(conv: nn.Module, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        AdaptedNetwork(nn.Sequential(conv), ["0"])


def test_a_delta_has_the_shape_of_the_weight() -> None:
    a, b, scale = adapters()["clay"].factors["down"]
    delta = LoraDelta(a, b, scale, (3, 3))
    assert delta.weight().shape == Small().down.weight.shape
    assert evolve(delta, kernel=()).weight().shape == (5, 27)

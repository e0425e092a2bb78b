"""diffusers' FeedForward is one computation where it is two plain linears and a GELU, and itself where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention import FeedForward
from torch import nn
from torch.nn.functional import gelu

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.adapters.eager import eager_lora_linear
from clora.adapters.feed_forward import LoraFeedForward
from clora.diffusion.rng import StepRng
from clora.toolkit.memory.linear import FrozenLinear
from clora.toolkit.memory.precision import FORMS

TARGETS = ("block.ff.net.0.proj", "block.ff.net.2")


class Kernel:
    """Says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, *given: Any) -> torch.Tensor:
        self.asked.append("linear")
        return eager_lora_linear(*given)

    def mlp(self, x: torch.Tensor, up: Any, down: Any, activation: str) -> torch.Tensor:
        self.asked.append(activation)
        hidden = gelu(eager_lora_linear(x, *up), approximate="tanh" if activation == "gelu_tanh" else "none")
        return eager_lora_linear(hidden, *down)


def network(**settings: Any) -> Any:
    torch.manual_seed(0)
    made = nn.Module()
    made.block = nn.Module()
    made.block.ff = FeedForward(4, **{"activation_fn": "gelu-approximate", **settings}).eval()
    return made


def adapted(made: Any, kernel: Any, targets: tuple[str, ...] = TARGETS) -> AdaptedNetwork:
    """An adapter `up` on the first linear alone, and `both`."""
    found = AdaptedNetwork(made, targets, kernel)
    sizes = {TARGETS[0]: (4, 16), TARGETS[1]: (16, 4)}
    for name, covered in (("up", targets[:1]), ("both", targets)):
        adapter = Adapter.fresh({target: sizes[target] for target in covered}, 2, 2.0, StepRng(0).named(name))
        with torch.no_grad():
            adapter.flat.copy_(StepRng(0).normal(name, adapter.flat))
        found.add(name, adapter)
    return found


@pytest.mark.parametrize(("word", "ours"), [("gelu-approximate", "gelu_tanh"), ("gelu", "gelu")])
def test_it_is_asked_for_as_one_and_its_parts_keep_their_names(word: str, ours: str) -> None:
    kernel = Kernel()
    made, plain = adapted(network(activation_fn=word), kernel), adapted(network(activation_fn=word), eager_lora_linear)
    x = torch.randn(3, 5, 4)
    rows = ("both", "up", None)
    with made.rows(rows), plain.rows(rows):
        torch.testing.assert_close(made.network.block.ff(x), plain.network.block.ff(x))
    assert kernel.asked == [ours]
    assert isinstance(made.network.block.ff, LoraFeedForward)
    assert not made.network.block.ff.training
    assert [name for name, _ in made.network.named_modules()] == [name for name, _ in plain.network.named_modules()]


def test_rows_without_adapter_are_the_base() -> None:
    kernel = Kernel()
    made = adapted(network(), kernel)
    x = torch.randn(2, 5, 4)
    with made.rows([None, None]):
        assert torch.equal(made.network.block.ff(x), network().block.ff(x))
    assert torch.equal(made.network.block.ff(x), network().block.ff(x))
    assert kernel.asked == []


def hooked() -> Any:
    made = network()
    made.block.ff.register_forward_hook(lambda *_: None)
    return made


def quantised() -> Any:
    made = network()
    base, form = made.block.ff.net[2], FORMS["int8"]
    made.block.ff.net[2] = FrozenLinear(form, base, form.pack(base.weight))
    return made


@pytest.mark.parametrize(
    "made",
    [
        network(dropout=0.1),
        network(activation_fn="geglu"),
        network(activation_fn="linear-silu"),
        network(final_dropout=True),
        hooked(),
        quantised(),
    ],
)
def test_anything_else_stays_what_it_is(made: Any) -> None:
    AdaptedNetwork(made, TARGETS, Kernel())
    assert type(made.block.ff) is FeedForward


def test_one_linear_of_two_is_no_pair() -> None:
    for target in TARGETS:
        made = network()
        AdaptedNetwork(made, (target,), Kernel())
        assert type(made.block.ff) is FeedForward

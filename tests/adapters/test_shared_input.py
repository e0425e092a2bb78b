"""Linears of one input are computed together, whatever the network then does, and nothing waits for long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.adapters.eager import eager_lora_linear
from clora.diffusion.rng import StepRng
from clora.toolkit.memory.checkpointing import checkpointed
from clora.toolkit.memory.linear import FrozenLinear
from clora.toolkit.memory.precision import FORMS

NAMES = ("to_q", "to_k", "to_v")
TARGETS = tuple(f"block.{name}" for name in NAMES)


class Kernel:
    """Counts what it is asked for; `group` gives what the single linears would."""

    def __init__(self) -> None:
        self.single = 0
        self.groups: list[int] = []

    def __call__(self, *given: Any) -> torch.Tensor:
        self.single += 1
        return eager_lora_linear(*given)

    def group(self, x: torch.Tensor, linears: Sequence[Any]) -> list[torch.Tensor]:
        self.groups.append(len(linears))
        return [eager_lora_linear(x, *rest) for rest in linears]


class Attention(nn.Module):
    """q, k and v of 4 features; `how` says which input each of them gets."""

    def __init__(self, how: str = "the same") -> None:
        super().__init__()
        self.how = how
        self.to_q, self.to_k, self.to_v = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.to_q(x)
        if self.how == "another":
            k, v = self.to_k(2 * x), self.to_v(3 * x)
        elif self.how == "an equal one":
            k, v = self.to_k(x.clone()), self.to_v(x.clone())
        elif self.how == "written into":
            with torch.no_grad():
                x.mul_(2)
            k, v = self.to_k(x), self.to_v(x)
        elif self.how == "twice":
            k, v = self.to_k(x), self.to_v(x) + self.to_v(x)
        elif self.how == "q alone":
            return q
        elif self.how == "an error":
            raise ZeroDivisionError
        elif self.how == "without gradient":
            with torch.no_grad():
                k = self.to_k(x)
            v = self.to_v(x)
        else:
            k, v = self.to_k(x), self.to_v(x)
        return q * k + v


class Network(nn.Module):
    def __init__(self, how: str = "the same") -> None:
        super().__init__()
        self.block = Attention(how)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


def adapted(kernel: Any, how: str = "the same", *, teacher: Sequence[str] = TARGETS[::2]) -> AdaptedNetwork:
    """A student on all three linears and a teacher that lacks one, none of them zero."""
    torch.manual_seed(0)
    made = AdaptedNetwork(Network(how), TARGETS, kernel)
    for name, targets, trainable in (("student", TARGETS, True), ("teacher", teacher, False)):
        adapter = Adapter.fresh(dict.fromkeys(targets, (4, 4)), 2, 2.0, StepRng(0).named(name), trainable=trainable)
        with torch.no_grad():
            adapter.flat.copy_(StepRng(0).normal(name, adapter.flat))
        made.add(name, adapter)
    return made


ROWS = ("student", "teacher", None, "student")


def answer(made: AdaptedNetwork, again: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The network's answer, its gradient to x and to the student; `again` makes the forward again for the backward."""
    x = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    student = made.adapters["student"]
    student.zero_grad()
    with made.rows(ROWS):
        y = checkpointed(made.network, x) if again else made.network(x)
    y.square().sum().backward()
    assert x.grad is not None
    assert student.flat_grad is not None
    return y.detach(), x.grad, student.flat_grad.clone()


@pytest.mark.parametrize("again", [False, True])
def test_one_call_computes_all_three(again: bool) -> None:
    kernel = Kernel()
    found, right = answer(adapted(kernel), again), answer(adapted(eager_lora_linear))
    assert kernel.groups == [3] * (1 + again)
    assert kernel.single == 0
    for mine, its in zip(found, right, strict=True):
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("how", ["another", "an equal one", "twice", "q alone", "without gradient"])
def test_whatever_the_network_does_the_answer_is_right(how: str, again: bool) -> None:
    made, plain = adapted(Kernel(), how), adapted(eager_lora_linear, how)
    for _ in range(3):
        for mine, its in zip(answer(made, again), answer(plain), strict=True):
            torch.testing.assert_close(mine, its)
        assert not made.routing.waiting


def test_an_input_that_is_written_into_is_another_one() -> None:
    kernel = Kernel()
    made, plain = adapted(kernel, "written into"), adapted(eager_lora_linear, "written into")
    with torch.no_grad(), made.rows(ROWS), plain.rows(ROWS):
        torch.testing.assert_close(made.network(torch.ones(4, 3, 4)), plain.network(torch.ones(4, 3, 4)))


def test_linears_with_different_inputs_are_found_out_and_part() -> None:
    kernel = Kernel()
    made = adapted(kernel, "another")
    answer(made, again=True)
    assert kernel.groups == [3, 3]  # the forward that is made again is the first one's
    answer(made, again=True)
    assert kernel.groups == [3, 3]


def test_nothing_waits_when_the_rows_are_gone() -> None:
    made = adapted(Kernel(), "q alone")
    x = torch.ones(4, 3, 4)
    with made.rows(ROWS):
        made.network(x)
        assert made.routing.waiting
        with made.rows(ROWS):
            assert not made.routing.waiting  # other rows: not what was asked for
    assert not made.routing.waiting


def test_nothing_waits_after_an_error() -> None:
    made = adapted(Kernel(), "an error")
    with pytest.raises(ZeroDivisionError), made.rows(ROWS):
        made.network(torch.ones(4, 3, 4))
    assert not made.routing.waiting


def test_rows_that_are_not_set_or_cover_fewer_than_two_go_alone() -> None:
    kernel = Kernel()
    made = adapted(kernel, teacher=TARGETS[:1])
    x = torch.ones(4, 3, 4)
    made.network(x)
    with made.rows([None] * 4):
        made.network(x)
    assert kernel.single == 0
    with made.rows(["teacher"] * 4):
        made.network(x)
    assert (kernel.groups, kernel.single) == ([], 1)


def test_a_stacked_batch_repeats_the_rows_for_linears_that_nothing_covers_too() -> None:
    kernel = Kernel()
    made, plain = adapted(kernel), adapted(eager_lora_linear)
    x = torch.randn(8, 3, 4)
    with made.rows(["teacher"] * 4), plain.rows(["teacher"] * 4):
        torch.testing.assert_close(made.network(x), plain.network(x))
    assert kernel.groups == [3]
    with (
        made.rows(ROWS),
        pytest.raises(ValueError, match="9 rows reached a linear or convolution, but adapters are set for 4"),
    ):
        made.network(torch.ones(9, 3, 4))


def test_a_linear_without_a_plain_weight_is_left_out() -> None:
    network = Network()
    form = FORMS["int8"]
    base = network.block.to_k
    network.block.to_k = FrozenLinear(form, base, form.pack(base.weight))  # pyright: ignore[reportAttributeAccessIssue]
    made = AdaptedNetwork(network, TARGETS, Kernel())
    assert all(linear.shared is None for linear in made.linears.values())


def test_two_of_three_are_together_and_others_alone() -> None:
    network = Network()
    network.to_v = nn.Linear(4, 4)
    network.block.to_k = nn.Linear(5, 4)
    targets = (*TARGETS, "to_v")
    assert all(linear.shared is None for linear in AdaptedNetwork(network, targets, Kernel()).linears.values())
    made = AdaptedNetwork(Network(), (TARGETS[2], TARGETS[0]), Kernel())
    shared = made.linears[TARGETS[0]].shared
    assert shared is made.linears[TARGETS[2]].shared is not None
    assert shared.linears == [made.linears[TARGETS[0]], made.linears[TARGETS[2]]]  # the one that is called first


def test_a_network_that_is_let_go_is_gone_at_once() -> None:
    made = adapted(Kernel())
    answer(made)
    base = weakref.ref(made.linears["block.to_k"].base)
    gc.disable()  # its memory is needed now, not when the garbage collector comes round
    try:
        del made
        assert base() is None
    finally:
        gc.enable()

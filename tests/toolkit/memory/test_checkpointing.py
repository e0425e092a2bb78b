"""Activations made twice: the second forward meets the adapters of the first, whatever was set in between."""

from __future__ import annotations

import pytest
import torch

ROWS = ("teacher", "student", None, "student")


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_gradients_are_the_same_bits(small, weights: str) -> None:
    here, there = small(weights=weights), small(weights=weights, gradient_checkpointing=True)
    for mine, its in zip(there.gradient(*ROWS), here.gradient(*ROWS), strict=True):
        assert torch.equal(mine, its)
    assert here.student.flat_grad.abs().max() > 0


def test_the_backward_pass_may_run_where_other_rows_are_set(small) -> None:
    here, there = small(), small(gradient_checkpointing=True)
    expected = here.gradient(*ROWS)[1]
    with there.adapted.rows(ROWS):
        answer = there.answer(len(ROWS))
    with there.adapted.rows(["teacher"]):
        answer.square().mean().backward()
        assert there.adapted.routing.runs == (("teacher", 1),)  # and it is set again afterwards
    assert torch.equal(there.student.flat_grad, expected)


def test_what_learns_nothing_in_the_first_forward_learns_nothing_in_the_second(small) -> None:
    gradients = []
    for checkpointing in (False, True):
        one = small(gradient_checkpointing=checkpointing)
        inputs: list[torch.Tensor] = []

        def listen(module: torch.nn.Module, args: tuple[torch.Tensor, ...], into: list = inputs) -> tuple[torch.Tensor]:
            into.append(args[0].detach().requires_grad_())
            return (into[-1],)

        with one.adapted.rows(ROWS, frozen=True):
            one.network.img_in.register_forward_pre_hook(listen)
            answer = one.answer(len(ROWS))
        with one.adapted.rows(["teacher"]):
            answer.square().mean().backward()
        assert not one.student.flat_grad.any()
        gradients.append(inputs[0].grad)
    assert torch.equal(*gradients)
    assert gradients[0].any()


def test_only_the_blocks_inputs_are_kept(small) -> None:
    kept = {}
    for checkpointing in (False, True):
        one = small(gradient_checkpointing=checkpointing)
        bytes_kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, into: dict[int, int] = bytes_kept) -> torch.Tensor:
            into[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), one.adapted.rows(["student"]):
            one.answer(1)
        kept[checkpointing] = sum(bytes_kept.values())
    assert kept[True] < kept[False] / 4

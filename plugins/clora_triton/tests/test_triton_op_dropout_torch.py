"""Dropout with what torch offers around an operator: opcheck, compilation, checkpointing, autocast."""

from __future__ import annotations

import pytest
import torch
from clora_triton.op import lora_linear
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

SHARES = [0.4, 0.0, 0.1]


def inputs():
    """x, weight and segments: an adapter, none, another adapter; everything that can learn does."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    adapters = [(randn(r, 20).requires_grad_(), randn(24, r).requires_grad_()) for r in (3, 5)]
    segments = [(2, *adapters[0], 2.0), (1, None, None, 0.0), (3, *adapters[1], 0.5)]
    return randn(6, 7, 20).requires_grad_(), randn(24, 20), segments, [f for pair in adapters for f in pair]


def gradients(y: torch.Tensor, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad((y * torch.arange(y.numel()).view(y.shape).sin()).sum(), tensors))


@pytest.mark.parametrize("keep", [True, False])
def test_opcheck(keep) -> None:
    x, weight, _, factors = inputs()
    table = factors[::2], factors[1::2], torch.tensor([2.0, 0.5], dtype=torch.float64), [2, 1, 3], [0, -1, 1]
    last = "auto", [0.4, 0.1], torch.tensor(5)
    torch.library.opcheck(torch.ops.clora.lora_linear.default, (x, weight, None, *table, keep, *last))
    detached = [f.detach() for f in table[0]], [f.detach() for f in table[1]], *table[2:]
    s = torch.randn(42, 5) if keep else torch.empty(0)
    needs = [True, False, False, True, False, True, True]
    backward = (torch.randn(6, 7, 24), x.detach(), weight, None, *detached, s, needs, *last)
    torch.library.opcheck(torch.ops.clora.lora_linear_backward.default, backward)


def test_the_operator_wants_one_share_an_adapter() -> None:
    x, weight, _, (a, b, *_) = inputs()
    arguments = (x, weight, None, [a], [b], torch.ones(1), [6], [0], False, "auto", [0.1, 0.2], torch.tensor(5))
    with pytest.raises(ValueError, match="dropout: expected one number for each of 1 adapters, got 2 numbers"):
        torch.ops.clora.lora_linear(*arguments)


def test_one_whole_graph_serves_every_seed_and_has_the_eager_mask() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    x, weight, segments, factors = inputs()

    def body(x, seed):
        return lora_linear(x * 2, weight, None, segments, dropout=SHARES, seed=seed).relu()

    compiled = torch.compile(body, backend=counter, fullgraph=True)
    for seed in (5, 6, -7, 2**40):
        found, expected = compiled(x, torch.tensor(seed)), body(x, seed)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        for mine, other in zip(gradients(found, [x, *factors]), gradients(expected, [x, *factors]), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1


def test_seeds_that_are_numbers_compile_at_most_once_more() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    x, weight, segments, _ = inputs()

    def body(seed):
        return lora_linear(x, weight, None, segments, dropout=0.5, seed=seed)

    compiled = torch.compile(body, backend=counter, fullgraph=True)
    for seed in (5, 6, -7, 2**40):
        torch.testing.assert_close(compiled(seed), body(seed), rtol=1e-5, atol=1e-5)
    assert counter.frame_count <= 2


def test_a_compiled_step_draws_its_seed_from_torch_s_generator() -> None:
    torch._dynamo.reset()
    x, weight, segments, _ = inputs()

    def body(x):
        return lora_linear(x, weight, None, segments, dropout=0.5, seed=torch.randint(2**62, ()))

    compiled = torch.compile(body, backend="aot_eager", fullgraph=True)
    runs = []
    for call in (body, compiled, compiled):
        torch.manual_seed(3)
        runs.append([call(x), call(x)])
    assert not torch.equal(*runs[0])
    for run in runs[1:]:
        for mine, eager in zip(run, runs[0], strict=True):
            torch.testing.assert_close(mine, eager, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("drawn_inside", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_call_sees_the_same_mask_again(reentrant, drawn_inside) -> None:
    x, weight, segments, factors = inputs()
    wanted = [x, *factors]

    def body(x: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        seed = torch.randint(2**62, ()) if drawn_inside else seed
        return lora_linear(x, weight, None, segments, dropout=SHARES, seed=seed)

    found = []
    for whole in (body, lambda x, seed: checkpoint(body, x, seed, use_reentrant=reentrant)):
        torch.manual_seed(3)
        y = whole(x, torch.tensor(8))
        torch.randn(5)  # whatever else draws numbers meanwhile
        y.square().sum().backward()
        found.append([y.detach(), *(t.grad.clone() for t in wanted)])
        for t in wanted:
            t.grad = None
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_has_the_mask_of_the_type_it_computes_in(compiled) -> None:
    x, weight, segments, factors = inputs()
    torch._dynamo.reset()
    call = torch.compile(lora_linear, backend="aot_eager", fullgraph=True) if compiled else lora_linear
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = call(x, weight, None, segments, dropout=SHARES, seed=torch.tensor(5))
    by_hand = lora_linear(x.bfloat16(), weight.bfloat16(), None, segments, dropout=SHARES, seed=5)
    torch.testing.assert_close(y, by_hand)
    for mine, other in zip(gradients(y.float(), factors), gradients(by_hand.float(), factors), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


def test_a_seed_changed_before_the_backward_pass_is_noticed() -> None:
    x, weight, segments, _ = inputs()
    seed = torch.tensor(5)
    y = lora_linear(x, weight, None, segments, dropout=0.5, seed=seed)
    seed.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()

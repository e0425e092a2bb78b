"""Dropout of the adapters' input: the formulas with the very mask, its statistics, and that it is never kept.

What a call's adapters saw is asked of the operator itself: with A and B the identity and no base, it is y.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clora_triton import dropout as module
from clora_triton.call import Dropout
from clora_triton.op import lora_linear
from clora_triton.reference import reference
from torch.nn.functional import linear

#: (rows, adapter or -1, dropout): one for all, enough rows to merge them otherwise; a mix in which one stands twice
PLANS = {
    "one": [(12, 0, 0.3)],
    "a mix": [(3, 0, 0.4), (0, 1, 0.2), (2, 1, 0.0), (1, -1, 0.5), (4, 0, 0.1), (2, 1, 0.75)],
}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def seen(shape: tuple[int, ...], p: float, seed: int) -> torch.Tensor:
    """float64 of an x's shape: the mask over 1 - p."""
    one = torch.eye(shape[-1], dtype=torch.float64)
    x = torch.ones(shape, dtype=torch.float64)
    return lora_linear(x, torch.zeros_like(one), None, [(shape[0], one, one, 1.0)], dropout=p, seed=seed)


def case(plan: list[tuple[int, int, float]], dtype: torch.dtype, tokens: int = 90):
    """x, weight, bias, segments, shares, dy, and what the oracle says of them with seed 5."""
    adapters = [(randn(r, 50).to(dtype).requires_grad_(), randn(41, r).to(dtype).requires_grad_()) for r in (3, 6)]
    segments = [(rows, *(adapters[i] if i >= 0 else (None, None)), 0.5 + i) for rows, i, _ in plan]
    rows, shares = sum(count for count, *_ in plan), [p for *_, p in plan]
    x, weight, bias = randn(rows, tokens, 50).to(dtype), randn(41, 50).to(dtype), randn(41).to(dtype)
    dy = randn(rows, tokens, 41).to(dtype)
    start, masks = 0, []
    for count, _, p in plan:
        masks.append(seen(tuple(x.shape), p, 5)[start : start + count])
        start += count
    right = reference(x, weight, bias, segments, dy, torch.cat(masks))
    exact = [right.y, right.dx]
    for i in range(len(adapters)):
        for parts in (right.da, right.db):
            mine = [part for (_, j, _), part in zip(plan, parts, strict=True) if i == j and part is not None]
            if mine:
                exact.append(torch.stack(mine).sum(0))
    return x, weight, bias, segments, shares, dy, exact


def factors(segments) -> list[torch.Tensor]:
    """Every adapter's A and B, each once, in the order of the adapters."""
    found = {id(a): (a, b) for _, a, b, _ in sorted(segments, key=lambda each: each[3]) if a is not None}
    return [factor for pair in found.values() for factor in pair]


BOUNDS = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("plan", PLANS)
def test_the_formulas_with_the_very_mask(plan, dtype, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4096)  # so that segments begin within blocks
    x, weight, bias, segments, shares, dy, exact = case(PLANS[plan], dtype)
    for laid in (x, x.transpose(0, 1).contiguous().transpose(0, 1), torch.stack([x, x], -1)[..., 0]):
        leaf = laid.detach().requires_grad_()
        y = lora_linear(leaf, weight, bias, segments, dropout=shares, seed=5)
        found = [y, *torch.autograd.grad(y, [leaf, *factors(segments)], dy)]
        for ours, true in zip(found, exact, strict=True):
            assert ours.dtype == dtype
            assert float((ours.detach().double() - true).norm()) < BOUNDS[dtype] * float(true.norm())
        with torch.no_grad():
            again = lora_linear(laid, weight, bias, segments, dropout=shares, seed=torch.tensor(5))
        torch.testing.assert_close(again, y, rtol=0, atol=0)


@pytest.mark.parametrize("split", [(1, 11), (5, 0, 7), (1,) * 12])
def test_the_mask_is_the_same_however_the_batch_is_cut(split, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 64)
    one, x = torch.eye(7, dtype=torch.float64), torch.ones(12, 5, 7, dtype=torch.float64)
    for bare in (0, len(split) - 1):
        segments = [(rows, one, one, 1.0) if i != bare else (rows, None, None, 0.0) for i, rows in enumerate(split)]
        y = lora_linear(x, torch.zeros_like(one), None, segments, dropout=0.4, seed=9)
        whole = seen((12, 5, 7), 0.4, 9)
        start = 0
        for i, rows in enumerate(split):
            if i != bare:
                assert torch.equal(y[start : start + rows], whole[start : start + rows])
            start += rows


@pytest.mark.parametrize("seed", [0, 7, -1, 2**63 - 1])
def test_the_mask_is_that_of_mersenne_twister(seed) -> None:
    """The stream as its documentation has it, by numpy's generator: no version of torch may change a resumed run."""
    block, whole = 1, (1 << 64) - 1
    z = (seed + 0x9E3779B97F4A7C15 * (block + 1)) & whole
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & whole
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & whole
    raw = np.random.RandomState((z ^ (z >> 31)) & 0xFFFFFFFF)._bit_generator.random_raw(2000).astype(np.uint64)
    halves = (raw[0::2] << np.uint64(32) | raw[1::2]).view(np.int16)  # type: ignore[attr-defined]
    found = seen((66000, 1), 0.25, seed)[65536:, 0].ne(0).numpy()
    assert (found == (halves[:464] >= 16384 - 32768)).all()


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_the_share_is_p_and_neighbours_know_nothing_of_each_other(p) -> None:
    found = seen((300, 1000), p, 3)
    assert found.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    keep = found.ne(0).double()

    def within_five_sigma(hits: torch.Tensor, chance: float) -> None:
        assert abs(float(hits.mean()) - chance) < 5 * (chance * (1 - chance) / hits.numel()) ** 0.5

    within_five_sigma(keep, 1 - p)
    apart = seen((300, 1000), p, 4).ne(0).double()
    both = (1 - p) ** 2
    for one, other in ((keep[1:], keep[:-1]), (keep[:, 1:], keep[:, :-1]), (keep[:, 4:], keep[:, :-4]), (keep, apart)):
        within_five_sigma(one * other, both)
    for axis in (0, 1):  # chi-squared of the rows' (columns') counts: mean n - 1, variance 2 (n - 1)
        counts, size = keep.sum(axis), keep.shape[axis]
        chi, n = float(((counts - keep.mean() * size) ** 2).sum() / (size * p * (1 - p))), counts.numel()
        assert abs(chi - n) < 5 * (2 * n) ** 0.5


def test_what_a_gpu_without_triton_would_draw_is_the_same_again_and_has_the_share() -> None:
    drawn = [module._whole(Dropout([0.3], torch.tensor(seed)), 200, 100) for seed in (5, 5, 6)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert abs(float((drawn[0] >= 0.3).double().mean()) - 0.7) < 5 * (0.3 * 0.7 / 20000) ** 0.5


def test_without_dropout_nothing_is_drawn_and_no_bit_changes(monkeypatch) -> None:
    x, weight, bias, segments, *_ = case(PLANS["a mix"], torch.float32)
    plain = lora_linear(x, weight, bias, segments)
    monkeypatch.setattr(module, "_drawn", lambda *_: pytest.fail("a mask was drawn"))
    for none in (0, 0.0, [0.0] * len(segments), ()):
        assert torch.equal(plain, lora_linear(x, weight, bias, segments, dropout=none))
    bare = [(rows, None, None, 0.0) for rows, *_ in segments]
    assert torch.equal(lora_linear(x, weight, bias, bare, dropout=0.5, seed=1), linear(x, weight, bias))


@pytest.mark.parametrize("plan", PLANS)
def test_zero_b_gives_the_bits_of_the_frozen_linear_and_two_runs_the_same(plan) -> None:
    x, weight, bias, segments, shares, dy, _ = case(PLANS[plan], torch.float32)
    runs = []
    for seed in (5, 5, 6):
        y = lora_linear(x, weight, bias, segments, dropout=shares, seed=seed)
        runs.append([y, *torch.autograd.grad(y, factors(segments), dy)])
    assert all(torch.equal(*pair) for pair in zip(runs[0], runs[1], strict=True))
    assert not any(torch.equal(*pair) for pair in zip(runs[0], runs[2], strict=True))
    empty = [(rows, a, b if b is None else torch.zeros_like(b), scale) for rows, a, b, scale in segments]
    assert torch.equal(lora_linear(x, weight, bias, empty, dropout=shares, seed=5), linear(x, weight, bias))


def test_an_adapter_s_rows_do_not_change_with_another_s_weights_or_dropout() -> None:
    x, weight, bias, segments, shares, *_ = case([(4, 0, 0.3), (3, 1, 0.2), (5, 0, 0.3)], torch.float32)
    before = lora_linear(x, weight, bias, segments, dropout=shares, seed=5)
    (rows, a, b, scale) = segments[1]
    segments[1] = (rows, a * -3, torch.full_like(b, float("nan")), scale)
    after = lora_linear(x, weight, bias, segments, dropout=[0.3, 0.7, 0.3], seed=5)
    for own in (slice(0, 4), slice(7, 12)):
        assert torch.equal(before[own], after[own])
    assert after[4:7].isnan().all()


def test_no_mask_is_kept_for_the_backward_pass() -> None:
    x, weight, bias, segments, shares, dy, _ = case(PLANS["a mix"], torch.float32)
    x.requires_grad_()
    packed: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> int:
        packed.append(tensor)
        return len(packed) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, packed.__getitem__):
        y = lora_linear(x, weight, bias, segments, dropout=shares, seed=5)
    assert [tensor.shape for tensor in packed if tensor.numel() >= x.numel()] == [x.shape]
    assert {tensor.dtype for tensor in packed} == {torch.float32, torch.int64}
    expected = lora_linear(x, weight, bias, segments, dropout=shares, seed=5)
    wanted = [x, *factors(segments)]
    grads = [torch.autograd.grad(each, wanted, dy) for each in (y, expected)]
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))


WRONG = {
    "all of it": ({"dropout": 1.0, "seed": 1}, ValueError, "dropout: expected 0 <= p < 1, got 1.0"),
    "less than nothing": ({"dropout": [0.1, -0.1], "seed": 1}, ValueError, "expected 0 <= p < 1, got -0.1"),
    "no number": ({"dropout": float("nan"), "seed": 1}, ValueError, "expected 0 <= p < 1, got nan"),
    "one too few": ({"dropout": [0.1], "seed": 1}, ValueError, "or one for each of 2 segments, got 1 numbers"),
    "a word": ({"dropout": "0.1", "seed": 1}, TypeError, "expected a number or a sequence of them, got str"),
    "words": ({"dropout": ["a", "b"], "seed": 1}, TypeError, "dropout: expected numbers, got str"),
    "no seed": ({"dropout": 0.1}, ValueError, "int64 tensor of no axes, as dropout is 0.1, got None"),
    "half a seed": ({"dropout": 0.1, "seed": 0.5}, TypeError, "seed: expected a whole number .*, got float"),
    "a long seed": ({"dropout": 0.1, "seed": 2**63}, ValueError, r"from -2\^63 to 2\^63 - 1, got 9223372036854775808"),
    "a short seed": ({"dropout": 0.1, "seed": torch.tensor(1).int()}, TypeError, r"got torch.int32 \[\]"),
    "two seeds": ({"dropout": 0.1, "seed": torch.ones(2).long()}, TypeError, r"got torch.int64 \[2\]"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_it_says_what_was_expected_and_what_came(wrong) -> None:
    changed, kind, message = WRONG[wrong]
    segments = [(1, torch.zeros(2, 8), torch.zeros(6, 2), 1.0), (3, None, None, 0.0)]
    with pytest.raises(kind, match=message):
        lora_linear(torch.zeros(4, 8), torch.zeros(6, 8), None, segments, **changed)

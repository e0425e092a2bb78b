"""`lora_linear` against its formulas in float64: odd shapes and strides, shared and absent adapters, its promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
from attrs import evolve, frozen
from clora_triton.cpu import SMALL
from clora_triton.kernels import Eager
from clora_triton.op import Segment, lora_linear
from clora_triton.reference import Reference, reference
from hypothesis import given, settings, strategies as st
from torch.nn.functional import linear


@frozen
class Case:
    """Inputs with adapters that several segments may share; `plan` holds (rows, adapter or -1)."""

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    adapters: list[tuple[torch.Tensor, torch.Tensor, float]]
    plan: list[tuple[int, int]]
    dy: torch.Tensor

    def segments(self) -> list[Segment]:
        return [(rows, *(self.adapters[i] if i >= 0 else (None, None, 0.0))) for rows, i in self.plan]


class Result(NamedTuple):
    """y, dx, and dA, dB of every adapter."""

    y: torch.Tensor
    dx: torch.Tensor
    da: list[torch.Tensor | None]
    db: list[torch.Tensor | None]


def make(
    inputs: int,
    outputs: int,
    axes: Sequence[int],
    ranks: Sequence[int],
    plan: list[tuple[int, int]],
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    rows = sum(count for count, _ in plan)
    adapters = [(randn(r, inputs), randn(outputs, r), 0.5 + i) for i, r in enumerate(ranks)]
    return Case(
        randn(rows, *axes, inputs),
        randn(outputs, inputs),
        randn(outputs) if bias else None,
        adapters,
        plan,
        randn(rows, *axes, outputs),
    )


def run(case: Case, call=lora_linear) -> Result:
    x = case.x.detach().requires_grad_()
    adapters = [
        (a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_(), s) for a, b, s in case.adapters
    ]
    segments = [(rows, *(adapters[i] if i >= 0 else (None, None, 0.0))) for rows, i in case.plan]
    y = call(x, case.weight, case.bias, segments)
    y.backward(case.dy)
    assert x.grad is not None
    return Result(y.detach(), x.grad, [a.grad for a, _, _ in adapters], [b.grad for _, b, _ in adapters])


def truth(case: Case) -> Reference:
    return reference(case.x, case.weight, case.bias, case.segments(), case.dy)


def per_adapter(case: Case, found: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """The sums of the oracle's entries of the segments that share an adapter."""
    sums: list[torch.Tensor | None] = [None] * len(case.adapters)
    for (_, i), part in zip(case.plan, found, strict=True):
        if i >= 0 and part is not None:
            known = sums[i]
            sums[i] = part if known is None else known + part
    return sums


def errors(case: Case, result: Result) -> dict[str, float]:
    """Root mean square error of every tensor, over the root mean square of the right one."""
    right = truth(case)
    pairs = {"y": (result.y, right.y), "dx": (result.dx, right.dx)}
    for name, found, true in (("da", result.da, right.da), ("db", result.db, right.db)):
        for i, (mine, its) in enumerate(zip(found, per_adapter(case, true), strict=True)):
            if mine is not None and its is not None:
                pairs[f"{name}{i}"] = (mine, its)
    return {k: float((m.double() - t).norm() / t.norm().clamp_min(1e-30)) for k, (m, t) in pairs.items() if t.numel()}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    ranks = draw(st.lists(st.sampled_from([1, 2, 3, 8, 17]), min_size=1, max_size=3))
    counts = st.tuples(st.integers(0, 4), st.integers(-1, len(ranks) - 1))
    plan = draw(st.lists(counts, min_size=1, max_size=5))
    return make(
        draw(st.integers(1, 40)),
        draw(st.integers(1, 40)),
        draw(st.sampled_from([(), (1,), (7,), (33,), (3, 5), (0,)])),
        ranks,
        plan,
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
        seed=draw(st.integers(0, 99)),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases(), st.booleans())
def test_every_shape_agrees_with_float64(case: Case, as_if_large: bool) -> None:
    bound = 1e-5 if case.x.dtype == torch.float32 else 1e-13
    with patch("clora_triton.cpu.SMALL", 0 if as_if_large else SMALL):
        result = run(case)
    assert result.y.dtype == case.x.dtype
    assert result.y.shape == (*case.x.shape[:-1], case.weight.shape[0])
    for name, error in errors(case, result).items():
        assert error < bound, name


#: one row; 5 x 123; ranks 1, 3, 128, 200; enough rows to merge (last three); out-features that no tile divides
SHAPES = [
    (16, 24, (), (3,), [(1, 0)]),
    (123, 5, (123,), (1, 3), [(2, 0), (3, 1)]),
    (64, 200, (9,), (128, 200), [(1, 0), (0, 1), (2, -1), (3, 1), (1, 0)]),
    (128, 128, (128,), (16,), [(12, 0)]),
    (128, 130, (100,), (16, 8), [(12, 0)]),
    (48, 66, (40,), (32,), [(6, 0)]),  # so large a rank that dA and dB go through dL/dW
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_error_is_at_most_half_more_than_that_of_torch(shape, dtype) -> None:
    case = make(*shape, dtype=dtype)
    ours, torchs = errors(case, run(case)), errors(case, run(case, Eager()))
    assert set(ours) == set(torchs)
    for name in ours:
        assert ours[name] <= 1.5 * torchs[name], name


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_b_gives_the_bits_of_the_frozen_linear(shape) -> None:
    case = make(*shape)
    for _, b, _ in case.adapters:
        b.zero_()
    with torch.no_grad():
        frozen_linear = linear(case.x, case.weight, case.bias)
        assert torch.equal(lora_linear(case.x, case.weight, case.bias, case.segments()), frozen_linear)
    assert torch.equal(run(case).y, frozen_linear)


@pytest.mark.parametrize(("vectors", "merged"), [(64, False), (65, True)])
def test_many_rows_of_one_adapter_go_through_a_merged_weight(vectors, merged) -> None:
    """From where the merged weight is smaller than x and y together: 128 x 128 against 65 x (128 + 128)."""
    case = make(128, 128, (), (4,), [(vectors, 0)])
    kept: list[torch.Size] = []
    case.adapters[0][0].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        lora_linear(case.x, case.weight, case.bias, case.segments())
    assert (torch.Size((128, 128)) in kept) == merged


@pytest.mark.parametrize("rank", [2, 32])
def test_a_plain_call_has_the_bits_of_one_that_goes_the_long_way(rank) -> None:
    """What is asked first of a plain call leaves out a scale that is a tensor."""
    case = make(48, 40, (30,), (rank,), [(4, 0)])
    scaled = [(a, b, torch.tensor(scale, dtype=torch.float64)) for a, b, scale in case.adapters]
    short, long = run(case), run(evolve(case, adapters=scaled))
    assert torch.equal(short.y, long.y)
    assert torch.equal(short.dx, long.dx)
    assert short.da[0].equal(long.da[0])
    assert short.db[0].equal(long.db[0])


def test_no_adapter_is_the_frozen_linear() -> None:
    case = make(8, 6, (5,), (2,), [(2, -1), (1, -1)])
    y = lora_linear(case.x, case.weight, case.bias, case.segments())
    assert torch.equal(y, linear(case.x, case.weight, case.bias))


def test_rows_of_an_adapter_do_not_change_when_another_changes() -> None:
    case = make(64, 200, (9,), (16, 3), [(2, 0), (3, 1), (2, -1)])
    before = run(case)
    case.adapters[1][0].mul_(-3)
    case.adapters[1][1].fill_(float("nan"))
    after = run(case)
    for rows in (slice(0, 2), slice(5, 7)):
        assert torch.equal(before.y[rows], after.y[rows])
        assert torch.equal(before.dx[rows], after.dx[rows])
    assert before.da[0] is not None
    assert torch.equal(before.da[0], after.da[0])
    assert torch.equal(before.db[0], after.db[0])
    assert after.y[2:5].isnan().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_two_runs_have_the_same_bits(shape) -> None:
    case = make(*shape)
    for mine, again in zip(run(case), run(case), strict=True):
        for one, other in zip(mine, again, strict=True) if isinstance(mine, list) else [(mine, again)]:
            assert (one is None and other is None) or torch.equal(one, other)


STRIDED = {
    "part of a longer sequence": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "every other row": lambda x: torch.stack([x, x], 1).flatten(0, 1)[::2],
    "channels before places": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "every other feature": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
    "four axes": lambda x: x.view(x.shape[0], 2, -1, x.shape[2]).transpose(1, 2).contiguous().transpose(1, 2),
}


@pytest.mark.parametrize("plan", [[(4, 0)], [(1, 0), (1, -1), (2, 1)]])
@pytest.mark.parametrize("way", STRIDED)
def test_strided_rows_and_gradients(way, plan) -> None:
    case = make(24, 40, (50,), (3, 5), plan)
    x, dy = STRIDED[way](case.x), STRIDED[way](case.dy)
    assert not x.is_contiguous()
    scattered = Case(x, case.weight, case.bias, case.adapters, plan, dy)
    assert max(errors(scattered, run(scattered)).values()) < 1e-5


@pytest.mark.parametrize("plan", [[(4, 0)], [(1, 0), (3, 1)]])
def test_broadcast_rows_and_gradients(plan) -> None:
    case = make(24, 40, (50,), (3, 5), plan)
    wide = Case(
        case.x[:1].expand(4, -1, -1), case.weight, case.bias, case.adapters, plan, case.dy[:1, :1].expand(4, 50, -1)
    )
    assert max(errors(wide, run(wide)).values()) < 1e-5


def test_an_adapter_that_several_segments_share_has_one_sum() -> None:
    case = make(16, 12, (5,), (3, 4), [(1, 0), (2, 1), (1, -1), (3, 0)])
    assert max(errors(case, run(case)).values()) < 1e-5


def test_an_adapter_that_no_row_uses_has_no_share() -> None:
    case = make(16, 12, (5,), (3, 4), [(2, 0), (0, 1)])
    result = run(case)
    assert result.da[1] is not None
    assert not result.da[1].any()
    assert not result.db[1].any()


@pytest.mark.parametrize("plan", [[(12, 0)], [(5, 0), (7, 1)]])
def test_only_what_needs_a_gradient_gets_one(plan) -> None:
    case = make(32, 32, (64,), (4, 4), plan)
    (a, b, _), (other, _, _) = case.adapters
    b.requires_grad_()
    lora_linear(case.x, case.weight, case.bias, case.segments()).backward(case.dy)
    assert a.grad is other.grad is case.x.grad is case.weight.grad is None
    right = per_adapter(case, truth(case).db)[0]
    assert right is not None
    torch.testing.assert_close(b.grad.double(), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plan", [[(12, 0)], [(5, 0), (7, -1)]])
def test_a_trained_base_has_its_gradients_too(plan) -> None:
    case = make(32, 32, (64,), (4,), plan)
    case.weight.requires_grad_()
    case.bias.requires_grad_()
    lora_linear(case.x, case.weight, case.bias, case.segments()).backward(case.dy)
    right = truth(case)
    torch.testing.assert_close(case.weight.grad.double(), right.dweight, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(case.bias.grad.double(), right.dbias, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("plan", [[(4, 0)], [(1, 0), (3, 1)]])
def test_float32_masters_of_a_half_precision_network_get_float32_sums(plan) -> None:
    case = make(64, 48, (40,), (4, 2), plan, dtype=torch.bfloat16)
    masters = Case(
        case.x, case.weight, case.bias, [(a.float(), b.float(), s) for a, b, s in case.adapters], plan, case.dy
    )
    result = run(masters)
    assert {d.dtype for d in (*result.da, *result.db) if d is not None} == {torch.float32}
    found, rounded = errors(masters, result), errors(masters, run(masters, Eager()))
    assert max(found.values()) < 0.02
    assert found["da0"] < rounded["da0"]
    assert found["db0"] < rounded["db0"]

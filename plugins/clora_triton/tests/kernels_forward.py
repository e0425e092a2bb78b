"""Shrink, expand and the fused linear against float64; test_triton_kernels.py runs it in a process of its own."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from clora_triton.configs import Config
from clora_triton.expand import expand_add
from clora_triton.fused import fused_dx, fused_linear
from clora_triton.shrink import shrink
from kernel_cases import CASES, DEVICE, DTYPES, Case, answers, assert_as_good_as_torch, each, inputs

#: small tiles, so that even small shapes have several, and partial ones; None is what a launch takes by itself
SMALL = Config(block_m=16, block_n=32, block_k=16, block_r=64, group=2, warps=4, stages=2)


@each(small=SMALL, default=None)
def test_shrink_is_as_good_as_torchs_product(case: Case, dtype: torch.dtype, config: Config | None) -> None:
    given = inputs(case, dtype)
    s = shrink(given.x, given.a, case.which, case.rows, config=config)
    exact, torchs = answers(case, given, torch.float64), answers(case, given, dtype)
    assert s.dtype == dtype
    assert_as_good_as_torch("s", s, torchs.s, exact.s, case.factor)
    assert (s[exact.s == 0] == 0).all()  # behind an adapter's rank and in rows of none


@each(small=SMALL, default=None)
def test_expand_adds_to_the_rows_of_adapters_and_leaves_the_others(
    case: Case, dtype: torch.dtype, config: Config | None
) -> None:
    given = inputs(case, dtype)
    s = shrink(given.x, given.a, case.which, case.rows)
    base = torch.nn.functional.linear(given.x, given.weight, given.bias)
    y = base.clone()
    assert expand_add(y, s, given.b, given.scales, case.which, case.rows, config=config) is y
    exact, torchs = base.double(), base.clone()
    for row, adapter in enumerate(case.owners()):
        if adapter >= 0:
            rank = case.ranks[adapter]
            exact[row] += given.scales[adapter] * given.b[adapter].double() @ s[row, :rank].double()
            torchs[row] += given.scales[adapter] * (given.b[adapter] @ s[row, :rank])
        else:
            assert torch.equal(y[row], base[row])
    assert_as_good_as_torch("y", y, torchs, exact)


@each(small=SMALL, default=None)
def test_the_fused_linear_is_as_good_as_torchs(case: Case, dtype: torch.dtype, config: Config | None) -> None:
    given = inputs(case, dtype)
    s = shrink(given.x, given.a, case.which, case.rows)
    y = fused_linear(given.x, given.weight, given.bias, s, given.b, given.scales, case.which, case.rows, config=config)
    assert_as_good_as_torch("y", y, answers(case, given, dtype).y, answers(case, given, torch.float64).y)


@each(small=SMALL, default=None)
def test_the_fused_dx_is_as_good_as_torchs(case: Case, dtype: torch.dtype, config: Config | None) -> None:
    given = inputs(case, dtype)
    torchs, exact = answers(case, given, dtype), answers(case, given, torch.float64)
    dx = fused_dx(given.dy, given.weight, torchs.ds, given.a, case.which, case.rows, config=config)
    assert_as_good_as_torch("dx", dx, torchs.dx, exact.dx)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_adapter_whose_b_is_zero_leaves_the_bits_of_the_base(dtype: torch.dtype) -> None:
    case = CASES[3]
    given = inputs(case, dtype)
    s = shrink(given.x, given.a, case.which, case.rows)
    zeros = [torch.zeros_like(b) for b in given.b]
    arguments = (given.x, given.weight, given.bias, s)
    with_zero = fused_linear(*arguments, zeros, given.scales, case.which, case.rows)
    assert torch.equal(with_zero, fused_linear(*arguments, [], [], [-1] * len(case.rows), case.rows))
    base = torch.nn.functional.linear(given.x, given.weight, given.bias)
    assert torch.equal(base, expand_add(base.clone(), s, zeros, given.scales, case.which, case.rows))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_other_adapters_never_change_a_row(dtype: torch.dtype) -> None:
    case = Case((18, 3, 20), (0, 1, -1), (6, 4), 50, 37)
    given = inputs(case, dtype)
    results = []
    for factor in (1.0, float("nan")):
        a, b = [given.a[0], given.a[1] * factor], [given.b[0], given.b[1] * factor]
        s = shrink(given.x, a, case.which, case.rows)
        fused = fused_linear(given.x, given.weight, None, s, b, given.scales, case.which, case.rows, config=SMALL)
        added = expand_add(given.dy.clone(), s, b, given.scales, case.which, case.rows, config=SMALL)
        results.append((s, fused, added))
    for before, after in zip(*results, strict=True):
        own = [row for row, adapter in enumerate(case.owners()) if adapter != 1]
        assert torch.equal(before[own], after[own])
        assert after[18:21].isnan().any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_inputs_are_read_where_they_lie(dtype: torch.dtype) -> None:
    case = Case((6, 0, 11), (0, 1, 1), (3, 5), 23, 29)
    given = inputs(case, dtype)
    plain = shrink(given.x, given.a, case.which, case.rows)
    held = torch.full((case.inner, 2 * case.m), float("nan"), dtype=dtype, device=DEVICE)
    held[:, ::2] = given.x.T
    x = held[:, ::2].T  # neither axis has stride 1
    a = [factor.T.contiguous().T for factor in given.a]
    b = [factor.T.contiguous().T for factor in given.b]
    weight = given.weight.T.contiguous().T
    assert torch.equal(shrink(x, a, case.which, case.rows), plain)
    out = torch.full((case.m, 9), float("nan"), dtype=torch.float32, device=DEVICE)
    shrink(x, a, case.which, case.rows, out=out[:, 1:6])
    torch.testing.assert_close(out[:, 1:6].to(dtype), plain)
    assert out[:, [0, 6, 7, 8]].isnan().all()
    straight = fused_linear(given.x, given.weight, given.bias, plain, given.b, given.scales, case.which, case.rows)
    assert torch.equal(fused_linear(x, weight, given.bias, plain, b, given.scales, case.which, case.rows), straight)
    y = torch.zeros(case.width, case.m, dtype=dtype, device=DEVICE).T
    expected = expand_add(torch.zeros_like(straight), plain, given.b, given.scales, case.which, case.rows)
    assert torch.equal(expand_add(y, plain, b, given.scales, case.which, case.rows), expected)
    row = given.x[:1].expand(case.m, -1)  # one row many times, by a stride of zero
    assert torch.equal(shrink(row, a, (0,), (case.m,)), shrink(row.contiguous(), a, (0,), (case.m,)))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float32], ids=str)
def test_float32_masters_are_rounded_as_they_are_read(dtype: torch.dtype) -> None:
    case = CASES[2]
    given = inputs(case, dtype, factors=torch.float32)
    a, b = [f.to(dtype) for f in given.a], [f.to(dtype) for f in given.b]
    s = shrink(given.x, given.a, case.which, case.rows)
    assert torch.equal(s, shrink(given.x, a, case.which, case.rows))
    mixed = [given.b[0], b[1]]  # a float32 master beside a frozen adapter in half precision
    for factors in (given.b, mixed):
        y = fused_linear(given.x, given.weight, None, s, factors, given.scales, case.which, case.rows)
        assert torch.equal(y, fused_linear(given.x, given.weight, None, s, b, given.scales, case.which, case.rows))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scales_may_stand_in_a_tensor(dtype: torch.dtype) -> None:
    case = CASES[2]
    given = inputs(case, dtype)
    s = shrink(given.x, given.a, case.which, case.rows)
    ours = [
        fused_linear(given.x, given.weight, None, s, given.b, scales, case.which, case.rows)
        for scales in (given.scales, torch.tensor(given.scales, device=DEVICE))
    ]
    assert torch.equal(*ours)


def test_two_runs_give_the_same_bits() -> None:
    case = CASES[5]
    given = inputs(case, torch.float16)
    runs = []
    for _ in range(2):
        s = shrink(given.x, given.a, case.which, case.rows)
        y = fused_linear(given.x, given.weight, given.bias, s, given.b, given.scales, case.which, case.rows)
        runs.append((s, y, expand_add(y.clone(), s, given.b, given.scales, case.which, case.rows)))
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [Case((18, 3, 20), (0, 1, -1), (6, 4), 56, 40), CASES[5]], ids=str)
def test_descriptors_read_the_same_numbers(case: Case, dtype: torch.dtype) -> None:
    """CASES[5] has rows that begin between multiples of 16 bytes: no descriptor can be made, and none is needed."""
    given = inputs(case, dtype)
    described = evolve(SMALL, descriptors=True)
    s = shrink(given.x, given.a, case.which, case.rows)
    ds = shrink(given.dy, [b.T for b in given.b], case.which, case.rows)
    plain, read = (
        (
            fused_linear(given.x, given.weight, given.bias, s, given.b, given.scales, case.which, case.rows, config=c),
            fused_dx(given.dy, given.weight, ds, given.a, case.which, case.rows, config=c),
        )
        for c in (SMALL, described)
    )
    for ours, theirs in zip(plain, read, strict=True):
        assert torch.equal(ours, theirs)

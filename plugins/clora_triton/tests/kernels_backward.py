"""The adapters' gradients against float64; test_triton_kernels.py runs it in a process of its own."""

from __future__ import annotations

import pytest
import torch
from clora_triton.backward import backward_s_and_db, da
from clora_triton.configs import Config
from clora_triton.shrink import shrink
from kernel_cases import CASES, DEVICE, DTYPES, Case, answers, assert_as_good_as_torch, each, inputs

#: small tiles and chunks, so that even small shapes have several, and partial ones
SMALL = Config(block_m=16, block_n=32, block_k=16, block_r=64, chunk=32, warps=4, stages=2)
#: chunks that no tile divides
ODD = Config(block_m=16, block_n=64, block_k=32, block_r=64, chunk=7, warps=4, stages=2)


@each(small=SMALL, odd=ODD, default=None)
def test_gradients_are_as_good_as_torchs(case: Case, dtype: torch.dtype, config: Config | None) -> None:
    given = inputs(case, dtype)
    torchs, exact = answers(case, given, dtype), answers(case, given, torch.float64)
    s = shrink(given.x, given.a, case.which, case.rows)
    ds, db = backward_s_and_db(given.dy, s, given.b, given.scales, case.which, case.rows, config=config)
    grads = da(ds, given.x, case.which, case.rows, case.ranks, config=config)
    assert ds.dtype == dtype
    assert_as_good_as_torch("ds", ds, torchs.ds, exact.ds, case.factor)
    assert (ds[exact.ds == 0] == 0).all()
    for index in range(len(case.ranks)):
        for name, ours, theirs, true in (
            ("dB", db[index], torchs.db[index], exact.db[index]),
            ("dA", grads[index], torchs.da[index], exact.da[index]),
        ):
            assert ours is not None
            assert ours.dtype == torch.float32
            assert_as_good_as_torch(f"{name} {index}", ours, theirs, true, case.factor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_is_made_that_nobody_wants(dtype: torch.dtype) -> None:
    case = Case((17, 0, 20, 9), (0, 1, 2, -1), (4, 2, 3), 21, 35)
    given = inputs(case, dtype)
    s = shrink(given.x, given.a, case.which, case.rows)
    arguments = (given.b, given.scales, case.which, case.rows)
    ds, db = backward_s_and_db(given.dy, s, *arguments, config=SMALL)
    some_ds, some = backward_s_and_db(given.dy, s, *arguments, wanted=[False, True, True], config=SMALL)
    assert torch.equal(ds, some_ds)
    assert some[0] is None
    assert (some[1] == 0).all()  # an adapter without rows
    assert torch.equal(some[2], db[2])
    only_ds, none = backward_s_and_db(given.dy, None, *arguments, wanted=[False] * 3, config=SMALL)
    assert torch.equal(ds, only_ds)
    assert none == [None] * 3
    whole = da(ds, given.x, case.which, case.rows, case.ranks, config=SMALL)
    part = da(ds, given.x, case.which, case.rows, case.ranks, wanted=[True, False, False], config=SMALL)
    assert part[1:] == [None, None]
    assert torch.equal(part[0], whole[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gradient_never_sees_the_rows_of_others(dtype: torch.dtype) -> None:
    case = Case((18, 3, 20, 2), (0, 1, -1, 0), (6, 4), 50, 37)
    given = inputs(case, dtype)
    s = shrink(given.x, given.a, case.which, case.rows)
    before_ds, before = backward_s_and_db(given.dy, s, given.b, given.scales, case.which, case.rows, config=SMALL)
    before_da = da(before_ds, given.x, case.which, case.rows, case.ranks, config=SMALL)
    own = [row for row, adapter in enumerate(case.owners()) if adapter == 0]
    others = [row for row in range(case.m) if row not in own]
    for tensor in (given.dy, given.x, s):
        tensor[others] = float("nan")
    given.b[1].fill_(float("nan"))
    ds, db = backward_s_and_db(given.dy, s, given.b, given.scales, case.which, case.rows, config=SMALL)
    assert torch.equal(ds[own], before_ds[own])
    assert torch.equal(db[0], before[0])
    assert torch.equal(da(ds, given.x, case.which, case.rows, case.ranks, config=SMALL)[0], before_da[0])
    assert db[1].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_gradients_are_read_where_they_lie(dtype: torch.dtype) -> None:
    case = Case((6, 0, 40), (0, 1, 1), (3, 5), 23, 29)
    given = inputs(case, dtype)
    s = shrink(given.x, given.a, case.which, case.rows)
    ds, db = backward_s_and_db(given.dy, s, given.b, given.scales, case.which, case.rows)
    grads = da(ds, given.x, case.which, case.rows, case.ranks)
    dy, x = given.dy.T.contiguous().T, given.x.T.contiguous().T
    packed = torch.full((case.m, 12), float("nan"), dtype=dtype, device=DEVICE)
    packed[:, 2:7] = s
    b = [factor.T.contiguous().T for factor in given.b]
    strided_ds, strided_db = backward_s_and_db(dy, packed[:, 2:7], b, given.scales, case.which, case.rows)
    assert torch.equal(strided_ds, ds)
    assert all(torch.equal(*pair) for pair in zip(strided_db, db, strict=True))
    assert all(torch.equal(*p) for p in zip(da(ds, x, case.which, case.rows, case.ranks), grads, strict=True))
    ones = torch.ones((), dtype=dtype, device=DEVICE).expand(case.m, case.width)  # what y.sum().backward() gives
    from_stride, from_copy = (
        backward_s_and_db(dy, s, given.b, given.scales, case.which, case.rows) for dy in (ones, ones.contiguous())
    )
    assert torch.equal(from_stride[0], from_copy[0])
    assert all(torch.equal(*pair) for pair in zip(from_stride[1], from_copy[1], strict=True))


def test_two_runs_give_the_same_bits() -> None:
    case = CASES[3]
    given = inputs(case, torch.float16)
    s = shrink(given.x, given.a, case.which, case.rows)
    runs = []
    for _ in range(2):
        ds, db = backward_s_and_db(given.dy, s, given.b, given.scales, case.which, case.rows, config=ODD)
        runs.append([ds, *db, *da(ds, given.x, case.which, case.rows, case.ranks, config=ODD)])
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))

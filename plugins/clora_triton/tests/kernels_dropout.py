"""Dropout in the kernels against Philox written out in numpy; run by test_triton_kernels.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clora_triton.backward import da
from clora_triton.call import Call, Dropout
from clora_triton.configs import Config
from clora_triton.dropout import written
from clora_triton.expand import expand_add
from clora_triton.fused import fused_dx
from clora_triton.op import lora_linear
from clora_triton.reference import reference
from clora_triton.shrink import shrink
from hypothesis import given, settings, strategies as st
from kernel_cases import DEVICE, DTYPES, Case, answers, assert_as_good_as_torch, inputs

SMALL = Config(block_m=16, block_n=32, block_k=16, block_r=32, chunk=24, group=2, warps=4, stages=2)
OTHER = Config(block_m=32, block_n=64, block_k=32, block_r=32, chunk=7, group=2, warps=4, stages=2)
CONFIGS = [pytest.param(SMALL, id="small"), pytest.param(OTHER, id="other"), pytest.param(None, id="default")]
CASE = Case((7, 0, 20, 3, 11), (0, 1, 1, -1, 0), (3, 18), 37, 45)
SHARES = (0.4, 0.1)
BOUNDS = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}  # relative errors


def philox(seed: int, rows: int, columns: int) -> np.ndarray:
    """uint32 [rows, columns]: Philox4x32-10 as its paper has it, output column % 4 of (column // 4, row, 0, 0)."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    row, column = np.meshgrid(np.arange(rows, dtype=np.uint64), np.arange(columns, dtype=np.uint64), indexing="ij")
    counter = [column // np.uint64(4), row, np.zeros_like(row), np.zeros_like(row)]
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(10):
        first, second = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        counter = [
            (second >> shift) ^ counter[1] ^ np.uint64(key[0]),
            second & low,
            (first >> shift) ^ counter[3] ^ np.uint64(key[1]),
            first & low,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.choose((column % np.uint64(4)).astype(np.int64), counter).astype(np.uint32)


def kept(seed: int, rows: int, columns: int, share: float) -> torch.Tensor:
    """The mask, bool: where the upper 24 bits as a fraction of one reach the share in float32."""
    fraction = (philox(seed, rows, columns) >> np.uint32(8)).astype(np.float32) / np.float32(2**24)
    return torch.from_numpy(fraction >= np.float32(share)).to(DEVICE)


def hidden(seed: int) -> Dropout:
    return Dropout(SHARES, torch.tensor(seed, device=DEVICE))


def seen(case: Case, seed: int) -> torch.Tensor:
    """float64 [m, inner]: what the rows' adapters see of x is x times this."""
    masks = [kept(seed, case.m, case.inner, share).double() / (1 - share) for share in SHARES]
    return torch.stack([masks[max(owner, 0)][row] for row, owner in enumerate(case.owners())])


def test_known_answers_of_philox() -> None:
    """The first of the known answers that its authors' library (Random123, kat_vectors) is tested with."""
    assert philox(0, 1, 4).tolist() == [[0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]]


@pytest.mark.parametrize("seed", [0, 1, -3, 2**62 + 12345, -(2**63)])
def test_the_mask_is_philox_of_row_and_column(seed: int) -> None:
    right = kept(seed, 50, 131, SHARES[0])
    assert torch.equal(written(hidden(seed), 0, slice(0, 50), 131), right)
    assert torch.equal(written(hidden(seed), 0, slice(7, 41), 131), right[7:41])


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 40), st.integers(1, 40), st.integers(1, 150))
def test_the_mask_of_any_part(seed: int, first: int, rows: int, columns: int) -> None:
    right = kept(seed, first + rows, columns, SHARES[1])[first:]
    assert torch.equal(written(hidden(seed), 1, slice(first, first + rows), columns), right)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("config", CONFIGS)
def test_every_kernel_makes_the_same_mask(dtype: torch.dtype, config: Config | None) -> None:
    drawn, seed = inputs(CASE, dtype), 5
    factor, rest = seen(CASE, seed), (CASE.which, CASE.rows)
    drop = hidden(seed)
    x = drawn.x.double() * factor
    plain, exact = answers(CASE, drawn, dtype), answers(CASE, drawn, torch.float64)
    s = shrink(drawn.x, drawn.a, *rest, dropout=drop, config=config)
    grads = da(plain.ds, drawn.x, *rest, CASE.ranks, dropout=drop, config=config)
    added = expand_add(
        torch.zeros_like(drawn.x), plain.ds, [a.T for a in drawn.a], None, *rest, dropout=drop, config=config
    )
    fused = fused_dx(drawn.dy, drawn.weight, plain.ds, drawn.a, *rest, dropout=drop, config=config)
    base = drawn.dy.double() @ drawn.weight.double()
    for adapter, rank in enumerate(CASE.ranks):
        own = [row for row, owner in enumerate(CASE.owners()) if owner == adapter]
        a, ds = drawn.a[adapter].double(), plain.ds[own, :rank].double()
        half = (drawn.x[own] * factor[own].to(dtype)) @ drawn.a[adapter].T
        assert_as_good_as_torch("s", s[own, :rank], half, x[own] @ a.T, CASE.factor)
        torchs = plain.ds[own, :rank].T @ (drawn.x[own] * factor[own].to(dtype))
        assert_as_good_as_torch("dA", grads[adapter], torchs, ds.T @ x[own], CASE.factor)
        torchs = (plain.ds[own, :rank] @ drawn.a[adapter]) * factor[own].to(dtype)
        assert_as_good_as_torch("ds A", added[own], torchs, (ds @ a) * factor[own])
        torchs = drawn.dy[own] @ drawn.weight + torchs
        assert_as_good_as_torch("dx", fused[own], torchs, base[own] + (ds @ a) * factor[own])
    bare = [row for row, owner in enumerate(CASE.owners()) if owner < 0]
    assert not added[bare].any()
    assert_as_good_as_torch("dx", fused[bare], plain.dx[bare], exact.dx[bare])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", ["addmm", "side_stream", "merged", "parts", "fused"])
def test_the_operator_has_one_mask_whoever_computes_it(kernel, dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two adapters with a dropout of their own and one without, in a strided batch; candidates of cuBLAS too."""

    def as_on_a_gpu(call: Call, adapter: int, at: slice) -> torch.Tensor | None:
        share = call.dropped(adapter)
        return written(call.dropout, adapter, at, call.x.shape[-1]) if call.dropout is not None and share else None

    monkeypatch.setattr("clora_triton.cpu.keep_mask", as_on_a_gpu)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, size: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * size).to(DEVICE, dtype)

    adapters = [(draw(r, 37, size=0.2).requires_grad_(), draw(45, r, size=0.3).requires_grad_()) for r in (9, 16, 3)]
    plan = [(3, 0, 0.3), (2, 1, 0.0), (0, 2, 0.9), (1, -1, 0.3), (2, 2, 0.6)]
    segments = [(rows, *(adapters[i] if i >= 0 else (None, None)), 0.7 + i) for rows, i, _ in plan]
    x, dy = draw(5, 8, 37).transpose(0, 1).requires_grad_(), draw(8, 5, 45)
    shares, weight = [share for *_, share in plan], draw(45, 37, size=0.2)
    y = lora_linear(x, weight, None, segments, dropout=shares, seed=11, kernel=kernel)
    again = lora_linear(x, weight, None, segments, dropout=shares, seed=torch.tensor(11, device=DEVICE), kernel=kernel)
    assert torch.equal(y, again)
    assert not torch.equal(y, lora_linear(x, weight, None, segments, dropout=shares, seed=12, kernel=kernel))
    start, factors = 0, []
    for rows, i, share in plan:
        mask = kept(11, 40, 37, share)[5 * start : 5 * (start + rows)].double() / (1 - share)
        factors.append((mask if i >= 0 else torch.ones_like(mask)).view(rows, 5, 37))
        start += rows
    right = reference(x, weight, None, segments, dy, torch.cat(factors))
    found = [y, *torch.autograd.grad(y, [x, *(f for pair in adapters for f in pair)], dy)]
    order = [0, 1, 4]  # the segments of adapters 0, 1 and 2 that have rows
    exact = [right.y, right.dx, *(part for i in order for part in (right.da[i], right.db[i]))]
    for ours, true in zip(found, exact, strict=True):
        assert true is not None
        assert float((ours.detach().double() - true).norm()) < BOUNDS[dtype] * float(true.norm())

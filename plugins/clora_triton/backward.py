"""The adapters' gradients: ds and dB from one read of dy, then dA from ds and x; no atomics, the same bits every time.

ds = scale * dy B needs whole rows of dy and dB = scale * dy^T s whole columns, so no single program can finish both
without carrying large partial results: at rank 128 and 64 rows a program, dB's would be four times the bytes of dy.
Here they are programs of one launch instead, in such an order that both kinds read the same rows of dy at about the
same time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from clora_triton.call import Dropout
from clora_triton.configs import Config, default, outer_work
from clora_triton.launching import (
    Factors,
    Scales,
    check_matrix,
    check_packed,
    check_segments,
    dropout_arguments,
    launch,
    numeric_arguments,
    once,
    scale_arguments,
)
from clora_triton.schedule import Schedule
from clora_triton.tiles import narrow_tile, outer_tile, pick, scale_of


@triton.jit
def backward_kernel(
    wide, stride_wm, stride_wn, narrow, stride_nm, factors, strides_fn, strides_fr, ranks, scales,
    jobs, ds, stride_dm, ds_width, partial, stride_pc, stride_pw, stride_pr, width, seed, p,
    SCALES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
    DS: tl.constexpr, EVEN: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Program (rank block, job): a tile of ds, or a block of columns of one partial outer product."""
    first_rank = tl.program_id(0) * BLOCK_R
    job = jobs + tl.program_id(1) * 5
    start, stop, adapter = tl.load(job), tl.load(job + 1), tl.load(job + 2)
    first_wide, number = tl.load(job + 3) * BLOCK_N, tl.load(job + 4)
    scale = scale_of(scales, adapter, SCALES)
    if number >= 0:
        outer_tile(
            wide, stride_wm, stride_wn, narrow, stride_nm, scale, start, stop, first_wide, first_rank,
            partial + number.to(tl.int64) * stride_pc, stride_pw, stride_pr, width, pick(ranks, adapter),
            seed, pick(p, adapter), BLOCK_M, BLOCK_N, BLOCK_R, UPCAST, PRECISION, DROPOUT,
        )  # fmt: skip
    elif DS:
        narrow_tile(
            wide, stride_wm, stride_wn, factors, strides_fn, strides_fr, ranks, scale,
            start, stop, adapter, first_rank, ds, stride_dm, width, ds_width, seed, p,
            BLOCK_M, BLOCK_K, BLOCK_R, EVEN, UPCAST, PRECISION, False,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip


@triton.jit
def reduce_kernel(
    partial, stride_pc, stride_pw, stride_pr, spans, outs, ranks, width,
    RANK_LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program (block of elements, gradient): the sum of its partial results in the order of their rows."""
    gradient = tl.program_id(1)
    rank = pick(ranks, gradient)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if RANK_LAST:
        w, r = element // rank, element % rank
    else:
        w, r = element % width, element // width
    inside = element < width * rank
    first = tl.load(spans + 2 * gradient)
    at = partial + first.to(tl.int64) * stride_pc + w * stride_pw + r * stride_pr
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for _ in range(first, tl.load(spans + 2 * gradient + 1)):
        total += tl.load(at, mask=inside, other=0.0)
        at += stride_pc
    tl.store(pick(outs, gradient) + element, total, mask=inside)


def backward_s_and_db(
    dy: torch.Tensor,
    s: torch.Tensor | None,
    b: Sequence[torch.Tensor],
    scales: Scales,
    which: Sequence[int],
    rows: Sequence[int],
    *,
    wanted: Sequence[bool] | None = None,
    ds: torch.Tensor | None = None,
    config: Config | None = None,
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """(ds [M, r_max] in dy's type, dB [N, r] in float32 of every adapter) from one launch over dy [M, N].

    dB is None where `wanted` (default: all) says that nobody needs it; s may be None where none is wanted. ds includes
    the scale and is zero in rows of no adapter; one that is given, [M, >= r_max], is written and given back. Raises
    ValueError, TypeError or IndexError where arguments do not fit.
    """
    check_matrix("dy", dy, (None, None))
    m, width = dy.shape
    check_segments(rows, which, m, len(b))
    factors = Factors.of("b", b, 0, width, dy)
    chosen = _wanted(wanted, len(b))
    if chosen and s is None:
        raise ValueError(f"s: expected the packed activations, as {len(chosen)} gradients of B are wanted, got None")
    narrow = dy if s is None else s
    if s is not None:
        check_packed("s", s, dy, factors.rank)
    ds = dy.new_empty(m, factors.rank) if ds is None else ds
    check_packed("ds", ds, dy, factors.rank)
    config = config or default(factors.work("backward", dy, m, width), dy.device)
    ranks = [factor.shape[1] for factor in b]
    grads = _launch(dy, narrow, factors, ranks, scales, which, rows, chosen, config, ds, rank_last=True)
    return ds, grads


def da(
    ds: torch.Tensor,
    x: torch.Tensor,
    which: Sequence[int],
    rows: Sequence[int],
    ranks: Sequence[int],
    *,
    wanted: Sequence[bool] | None = None,
    dropout: Dropout | None = None,
    config: Config | None = None,
) -> list[torch.Tensor | None]:
    """dA = ds^T x [r, K] in float32 of every adapter, from ds [M, >= r] (scaled already) and x [M, K] of any strides.

    None where `wanted` (default: all) says that nobody needs it. With dropout x is what each adapter sees. Raises
    ValueError, TypeError or IndexError where arguments do not fit.
    """
    check_matrix("x", x, (None, None))
    m, width = x.shape
    check_segments(rows, which, m, len(ranks))
    if any(rank < 1 for rank in ranks):
        raise ValueError(f"ranks: expected at least 1 each, got {list(ranks)}")
    check_packed("ds", ds, x, max(ranks, default=0))
    chosen = _wanted(wanted, len(ranks))
    config = config or default(outer_work(x, m, width, max(ranks, default=0)), x.device)
    return _launch(x, ds, None, ranks, None, which, rows, chosen, config, None, dropout, rank_last=False)


def _wanted(wanted: Sequence[bool] | None, adapters: int) -> list[int]:
    if wanted is not None and len(wanted) != adapters:
        raise ValueError(f"wanted: expected one answer for each of {adapters} adapters, got {len(wanted)}")
    return [index for index in range(adapters) if wanted is None or wanted[index]]


def _launch(
    wide: torch.Tensor,
    narrow: torch.Tensor,
    factors: Factors | None,
    ranks: Sequence[int],
    scales: Scales,
    which: Sequence[int],
    rows: Sequence[int],
    chosen: Sequence[int],
    config: Config,
    ds: torch.Tensor | None,
    dropout: Dropout | None = None,
    *,
    rank_last: bool,
) -> list[torch.Tensor | None]:
    """The launch over `wide` and the sum of what it leaves; ds (where given) is filled."""
    width = wide.shape[1]
    block_m = None if ds is None else config.block_m
    plan = Schedule.of(rows, which, chosen, width, config.block_n, config.chunk, wide.device, block_m)
    rank = max(ranks, default=0)
    shape = (plan.partials, width, rank) if rank_last else (plan.partials, rank, width)
    partial = wide.new_empty(shape, dtype=torch.float32)
    across = (partial.stride(0), *((rank, 1) if rank_last else (1, width)))
    if len(plan.jobs) and rank:
        block_r = config.ranks(rank)
        launch(
            backward_kernel, (triton.cdiv(rank, block_r), len(plan.jobs)), wide,
            wide, wide.stride(0), wide.stride(1), narrow, narrow.stride(0),
            (wide,) if factors is None else factors.pointers,
            (1,) if factors is None else factors.strides_wide,
            (1,) if factors is None else factors.strides_rank,
            once(tuple(ranks)),
            jobs=plan.jobs, ds=wide if ds is None else ds, stride_dm=0 if ds is None else ds.stride(0),
            ds_width=rank, partial=partial, stride_pc=across[0], stride_pw=across[1], stride_pr=across[2],
            width=width, DS=ds is not None,
            BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k, BLOCK_R=block_r,
            EVEN=width % config.block_k == 0, num_warps=config.warps, num_stages=config.stages,
            **scale_arguments(scales, len(ranks), wide.device), **numeric_arguments(wide),
            **dropout_arguments(dropout, len(ranks), wide),
        )  # fmt: skip
    return _reduce(partial, across, plan, ranks, chosen, width, rank_last)


def _reduce(
    partial: torch.Tensor,
    across: tuple[int, ...],
    plan: Schedule,
    ranks: Sequence[int],
    chosen: Sequence[int],
    width: int,
    rank_last: bool,
) -> list[torch.Tensor | None]:
    """The gradients in float32, [width, r] with rank_last or [r, width]; zero where an adapter has no rows."""
    grads: list[torch.Tensor | None] = [None] * len(ranks)
    outs = tuple(partial.new_empty((width, ranks[index]) if rank_last else (ranks[index], width)) for index in chosen)
    for index, out in zip(chosen, outs, strict=True):
        grads[index] = out
    if outs and width:
        chosen_ranks = tuple(ranks[index] for index in chosen)
        block = 1024
        launch(
            reduce_kernel,
            (triton.cdiv(width * max(chosen_ranks), block), len(chosen)),
            partial,
            partial,
            *across,
            plan.spans,
            outs,
            once(chosen_ranks),
            width,
            RANK_LAST=rank_last,
            BLOCK=block,
        )
    return grads

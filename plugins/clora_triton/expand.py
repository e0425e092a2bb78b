"""The segmented expand y += scale * s B^T, in place on a base's output; with A^T for B it is dx += ds A."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from clora_triton.call import Dropout
from clora_triton.configs import Config, default
from clora_triton.launching import (
    Factors,
    Scales,
    check_matrix,
    check_packed,
    check_segments,
    dropout_arguments,
    launch,
    numeric_arguments,
    scale_arguments,
)
from clora_triton.layout import Tiles
from clora_triton.masks import kept
from clora_triton.tiles import dot, pick, scale_of


@triton.jit
def expanded(
    s, stride_sm, factors, strides_fn, strides_fr, ranks, start, stop, adapter, first_column, width, seed, p,
    DTYPE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """s[start:stop] @ F[first_column:]^T of the tile's adapter in float32 [BLOCK_M, BLOCK_N]; zero for no adapter.

    DROPOUT: as the gradient of what the adapter saw, so zero where it saw nothing.
    """
    rank = tl.where(adapter < 0, 0, pick(ranks, adapter))
    stride_fn, stride_fr = pick(strides_fn, adapter), pick(strides_fr, adapter)
    r = tl.arange(0, BLOCK_R)
    columns = first_column + tl.arange(0, BLOCK_N)
    rows = tl.minimum(tl.arange(0, BLOCK_M), stop - start - 1)
    s_at = s + start.to(tl.int64) * stride_sm + rows[:, None] * stride_sm + r[None, :]
    f_at = pick(factors, adapter) + columns[None, :] * stride_fn + r[:, None] * stride_fr
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    # too short for a pipeline, which would take shared memory
    for done in tl.range(0, rank, BLOCK_R, num_stages=1):  # pyright: ignore[reportGeneralTypeIssues]
        s_tile = tl.load(s_at, mask=r[None, :] < rank - done, other=0.0).to(DTYPE)
        f_tile = tl.load(f_at, mask=(r[:, None] < rank - done) & (columns[None, :] < width), other=0.0).to(DTYPE)
        total = dot(s_tile, f_tile, total, UPCAST, PRECISION)
        s_at += BLOCK_R
        f_at += BLOCK_R * stride_fr
    if DROPOUT:
        share = pick(p, adapter)
        total = tl.where(kept(seed, start, first_column, share, BLOCK_M, BLOCK_N), total * (1.0 / (1.0 - share)), 0.0)
    return total


@triton.jit
def expand_kernel(
    y, stride_ym, stride_yn, s, stride_sm, factors, strides_fn, strides_fr, ranks, scales,
    starts, stops, whiches, width, seed, p, SCALES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Program (column block, tile): the tile's s stays in the cache while its columns are done."""
    tile = tl.program_id(1)
    start, stop, adapter = tl.load(starts + tile), tl.load(stops + tile), tl.load(whiches + tile)
    first_column = tl.program_id(0) * BLOCK_N
    columns = first_column + tl.arange(0, BLOCK_N)
    total = expanded(
        s, stride_sm, factors, strides_fn, strides_fr, ranks, start, stop, adapter, first_column, width, seed, p,
        y.dtype.element_ty, BLOCK_M, BLOCK_N, BLOCK_R, UPCAST, PRECISION, DROPOUT,
    )  # fmt: skip
    m = tl.arange(0, BLOCK_M)
    y_at = y + start.to(tl.int64) * stride_ym + m[:, None] * stride_ym + columns.to(tl.int64)[None, :] * stride_yn
    inside = (m[:, None] < stop - start) & (columns[None, :] < width)
    base = tl.load(y_at, mask=inside, other=0.0).to(tl.float32)
    changed = base + scale_of(scales, adapter, SCALES) * total
    tl.store(y_at, changed.to(y.dtype.element_ty), mask=inside)


def expand_add(
    y: torch.Tensor,
    s: torch.Tensor,
    b: Sequence[torch.Tensor],
    scales: Scales,
    which: Sequence[int],
    rows: Sequence[int],
    *,
    dropout: Dropout | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """Add scale * s B^T to y [M, N] in place, s [M, >= r] packed, B [N, r] of every adapter; gives y back.

    Rows of no adapter are neither read nor written. Scales None stand for 1. With dropout y is the gradient dx of an x
    that each adapter saw a part of. Raises ValueError, TypeError or IndexError where shapes, types, devices or segments
    do not fit.
    """
    check_matrix("y", y, (None, None))
    m, width = y.shape
    check_segments(rows, which, m, len(b))
    factors = Factors.of("b", b, 0, width, y)
    check_packed("s", s, y, factors.rank)
    config = config or default(factors.work("expand", y, m, width), y.device)
    tiles = Tiles.of(rows, which, config.block_m, y.device, bare=False)
    if not len(tiles) or not width:
        return y
    launch(
        expand_kernel, (triton.cdiv(width, config.block_n), len(tiles)), y,
        y, y.stride(0), y.stride(1), s, s.stride(0),
        factors.pointers, factors.strides_wide, factors.strides_rank, factors.ranks,
        starts=tiles.start, stops=tiles.stop, whiches=tiles.which, width=width,
        BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_R=config.ranks(factors.rank),
        num_warps=config.warps, num_stages=config.stages,
        **scale_arguments(scales, len(b), y.device), **numeric_arguments(y), **dropout_arguments(dropout, len(b), y),
    )  # fmt: skip
    return y

"""The segmented shrink s = x A^T: every row with its own segment's adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from clora_triton.call import Dropout
from clora_triton.configs import Config, default
from clora_triton.launching import (
    Factors,
    check_matrix,
    check_packed,
    check_segments,
    dropout_arguments,
    launch,
    numeric_arguments,
)
from clora_triton.layout import Tiles
from clora_triton.tiles import narrow_tile


@triton.jit
def shrink_kernel(
    x, stride_xm, stride_xk, factors, strides_fk, strides_fr, ranks, starts, stops, whiches,
    out, stride_om, width, out_width, seed, p,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
    EVEN: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Program (rank block, tile); rank blocks of one tile run side by side, so that its x is read from memory once."""
    first_rank = tl.program_id(0) * BLOCK_R
    tile = tl.program_id(1)
    start, stop, adapter = tl.load(starts + tile), tl.load(stops + tile), tl.load(whiches + tile)
    narrow_tile(
        x, stride_xm, stride_xk, factors, strides_fk, strides_fr, ranks, 1.0,
        start, stop, adapter, first_rank, out, stride_om, width, out_width, seed, p,
        BLOCK_M, BLOCK_K, BLOCK_R, EVEN, UPCAST, PRECISION, DROPOUT,
    )  # fmt: skip


def shrink(
    x: torch.Tensor,
    a: Sequence[torch.Tensor],
    which: Sequence[int],
    rows: Sequence[int],
    out: torch.Tensor | None = None,
    *,
    dropout: Dropout | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """s [M, r_max] of x [M, K] of any strides and A [r, K] of every adapter; float32 sums, x's type (or out's).

    Columns behind an adapter's rank and rows of no adapter are zero. With dropout x is what each adapter sees.
    Raises ValueError, TypeError or IndexError where shapes, types, devices or segments do not fit.
    """
    check_matrix("x", x, (None, None))
    m, width = x.shape
    check_segments(rows, which, m, len(a))
    factors = Factors.of("a", a, 1, width, x)
    s = x.new_empty(m, factors.rank) if out is None else out
    check_packed("out", s, x, factors.rank)
    config = config or default(factors.work("shrink", x, m, width), x.device)
    tiles = Tiles.of(rows, which, config.block_m, x.device)
    if not len(tiles) or not s.shape[1]:
        return s
    block_r = config.ranks(s.shape[1])
    launch(
        shrink_kernel, (triton.cdiv(s.shape[1], block_r), len(tiles)), x,
        x, x.stride(0), x.stride(1),
        factors.pointers, factors.strides_wide, factors.strides_rank, factors.ranks,
        tiles.start, tiles.stop, tiles.which, s, s.stride(0), width, s.shape[1],
        BLOCK_M=config.block_m, BLOCK_K=config.block_k, BLOCK_R=block_r, EVEN=width % config.block_k == 0,
        num_warps=config.warps, num_stages=config.stages,
        **numeric_arguments(x), **dropout_arguments(dropout, len(a), x),
    )  # fmt: skip
    return s

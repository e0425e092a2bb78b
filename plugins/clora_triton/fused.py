"""The base's GEMM and the adapters' expand in one kernel: y = x W^T + bias + scale * s B^T, and dx = dy W + ds A."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from clora_triton.call import Dropout
from clora_triton.configs import Config, default
from clora_triton.expand import expanded
from clora_triton.launching import (
    Factors,
    Scales,
    check_matrix,
    check_packed,
    check_segments,
    describable,
    dropout_arguments,
    launch,
    numeric_arguments,
    scale_arguments,
)
from clora_triton.layout import Tiles
from clora_triton.tiles import dot, scale_of


@triton.jit
def grouped(program, tiles, columns, GROUP: tl.constexpr):
    """(tile, column block) of a program: GROUP tiles go through the columns together, so W stays in the L2 cache."""
    before = (program // (GROUP * columns)) * GROUP
    size = tl.minimum(tiles - before, GROUP)
    inner = program % (GROUP * columns)
    return before + inner % size, inner // size


@triton.jit
def fused_kernel(
    x, stride_xm, stride_xk, w, stride_wn, stride_wk, bias, s, stride_sm,
    factors, strides_fn, strides_fr, ranks, scales, starts, stops, whiches, tiles,
    y, stride_ym, stride_yn, inner, width, seed, p, SCALES: tl.constexpr, BIAS: tl.constexpr,
    DESCRIBED: tl.constexpr, WIDE_LAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
    GROUP: tl.constexpr, EVEN: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The adapter's part comes first and is scaled in the accumulator, into which the base's part is then added.

    So one accumulator is enough, the scale is applied in float32, and B = 0 leaves exactly what no adapter leaves.
    DESCRIBED: x and w are tensor descriptors, read by Hopper's copy engine; a tile at a segment's end then reads rows
    of the next one too, which no row of its own sees. WIDE_LAST: w is described as [inner, width].
    """
    tile, block = grouped(tl.program_id(0), tiles, tl.cdiv(width, BLOCK_N), GROUP)
    start, stop, adapter = tl.load(starts + tile), tl.load(stops + tile), tl.load(whiches + tile)
    columns = block * BLOCK_N + tl.arange(0, BLOCK_N)
    total = expanded(
        s, stride_sm, factors, strides_fn, strides_fr, ranks, start, stop, adapter, block * BLOCK_N, width, seed, p,
        y.dtype.element_ty, BLOCK_M, BLOCK_N, BLOCK_R, UPCAST, PRECISION, DROPOUT,
    )  # fmt: skip
    total = total * scale_of(scales, adapter, SCALES)
    m, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    if DESCRIBED:
        x_at, w_at = x, w
    else:
        rows = tl.minimum(m, stop - start - 1)
        x_at = x + start.to(tl.int64) * stride_xm + rows[:, None] * stride_xm + k[None, :] * stride_xk
        w_at = w + columns.to(tl.int64)[None, :] * stride_wn + k[:, None] * stride_wk
    for done in range(0, inner, BLOCK_K):
        if DESCRIBED:
            x_tile = x_at.load([start, done])
            if WIDE_LAST:
                w_tile = w_at.load([done, block * BLOCK_N])
            else:
                w_tile = w_at.load([block * BLOCK_N, done]).T
        elif EVEN:
            x_tile, w_tile = tl.load(x_at), tl.load(w_at)
        else:
            x_tile = tl.load(x_at, mask=k[None, :] < inner - done, other=0.0)
            w_tile = tl.load(w_at, mask=(k[:, None] < inner - done) & (columns[None, :] < width), other=0.0)
        total = dot(x_tile, w_tile, total, UPCAST, PRECISION)
        if not DESCRIBED:
            x_at += BLOCK_K * stride_xk
            w_at += BLOCK_K * stride_wk
    if BIAS:
        total += tl.load(bias + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]
    y_at = y + start.to(tl.int64) * stride_ym + m[:, None] * stride_ym + columns.to(tl.int64)[None, :] * stride_yn
    tl.store(y_at, total.to(y.dtype.element_ty), mask=(m[:, None] < stop - start) & (columns[None, :] < width))


def fused_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    s: torch.Tensor,
    b: Sequence[torch.Tensor],
    scales: Scales,
    which: Sequence[int],
    rows: Sequence[int],
    *,
    dropout: Dropout | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """y [M, N] of x [M, K], weight [N, K], bias [N], s [M, >= r] packed and B [N, r] of every adapter, any strides.

    Rows of an adapter whose B is zero equal, bit for bit, those that this kernel gives rows of no adapter (torch's own
    linear adds in another order). With dropout y is the gradient dx of an x that each adapter saw a part of.
    Raises ValueError, TypeError or IndexError where the arguments do not fit.
    """
    check_matrix("x", x, (None, None))
    m, inner = x.shape
    check_matrix("weight", weight, (None, inner), like=x)
    width = weight.shape[0]
    if bias is not None:
        check_matrix("bias", bias, (width,), like=x)
    check_segments(rows, which, m, len(b))
    factors = Factors.of("b", b, 0, width, x)
    check_packed("s", s, x, factors.rank)
    config = config or default(factors.work("fused", x, m, width, inner), x.device)
    tiles = Tiles.of(rows, which, config.block_m, x.device)
    y = x.new_empty(m, width)
    if not len(tiles) or not width:
        return y
    described = config.descriptors and inner > 0 and describable(x) and (describable(weight) or describable(weight.T))
    wide_last = not describable(weight)
    read_x, read_w = x, weight
    if described:
        read_x = TensorDescriptor.from_tensor(x, [config.block_m, config.block_k])
        block = [config.block_n, config.block_k]
        read_w = TensorDescriptor.from_tensor(*((weight.T, block[::-1]) if wide_last else (weight, block)))
    launch(
        fused_kernel, (len(tiles) * triton.cdiv(width, config.block_n),), x,
        read_x, x.stride(0), x.stride(1), read_w, weight.stride(0), weight.stride(1),
        x if bias is None else bias.contiguous(), s, s.stride(0),
        factors.pointers, factors.strides_wide, factors.strides_rank, factors.ranks,
        starts=tiles.start, stops=tiles.stop, whiches=tiles.which, tiles=len(tiles),
        y=y, stride_ym=y.stride(0), stride_yn=y.stride(1), inner=inner, width=width, BIAS=bias is not None,
        DESCRIBED=described, WIDE_LAST=described and wide_last,
        BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k,
        BLOCK_R=config.ranks(factors.rank), GROUP=config.group,
        EVEN=inner % config.block_k == 0 and width % config.block_n == 0,
        num_warps=config.warps, num_stages=config.stages,
        **scale_arguments(scales, len(b), x.device), **numeric_arguments(x), **dropout_arguments(dropout, len(b), x),
    )  # fmt: skip
    return y


def fused_dx(
    dy: torch.Tensor,
    weight: torch.Tensor,
    ds: torch.Tensor,
    a: Sequence[torch.Tensor],
    which: Sequence[int],
    rows: Sequence[int],
    *,
    dropout: Dropout | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """dx [M, K] = dy W + ds A, from dy [M, N], weight [N, K], ds [M, >= r] (scaled already) and A [r, K].

    The same kernel on transposed views: nothing is copied.
    """
    factors = [factor.T for factor in a]
    return fused_linear(dy, weight.T, None, ds, factors, None, which, rows, dropout=dropout, config=config)

"""What the kernels share on the device: choosing an adapter, and the two products that a tile can be.

Every kernel's product is one of two. `narrow_tile` reduces over a wide axis (s = x A^T, ds = dy B): rows of the batch
stay, features go. `outer_tile` reduces over rows (dA = ds^T x, dB = dy^T s): features stay, rows go.
"""

from __future__ import annotations

import triton
import triton.language as tl

from clora_triton.masks import kept

#: how the scales come: none (1), as numbers with the launch, or in a tensor on the device
UNSCALED, NUMBERS, TENSOR = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def pick(values, adapter):
    """values[adapter] of a tuple of pointers or numbers; a tuple of one holds for every adapter.

    A chain of selects, as pointers that come with the launch cost no table on the device, no copy to it before the
    launch, and keep what the compiler knows of their alignment. Adapter -1 gets some value, to be used for nothing.
    """
    chosen = values[0]
    for index in tl.static_range(1, len(values)):  # pyright: ignore[reportGeneralTypeIssues]
        chosen = tl.where(adapter == index, values[index], chosen)
    return chosen


@triton.jit
def scale_of(scales, adapter, SCALES: tl.constexpr):
    """The adapter's scale."""
    if SCALES == UNSCALED:
        scale = 1.0
    elif SCALES == NUMBERS:
        scale = pick(scales, adapter)
    else:
        scale = tl.load(scales + tl.maximum(adapter, 0)).to(tl.float32)
    return scale


@triton.jit
def dot(left, right, total, UPCAST: tl.constexpr, PRECISION: tl.constexpr):
    """total + left @ right in float32; UPCAST for Triton's interpreter, whose half precision products round."""
    if UPCAST:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def narrow_tile(
    x, stride_xm, stride_xk, factors, strides_fk, strides_fr, ranks, scale,
    start, stop, adapter, first_rank, out, stride_om, width, out_width, seed, p,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
    EVEN: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """out[start:stop, first_rank:] = scale * x[start:stop] @ F of the tile's adapter; zero behind its rank.

    x [M, width], F(k, r) [width, rank] by strides, out [M, out_width]. The tile of no adapter is zero, and reads
    nothing. Rows behind the end are read as the last one again and not written. Ranks are masked: a clamp would hide
    from the compiler that they are neighbours in memory, and with that the wide loads of a B. DROPOUT: x is what the
    adapter sees of it.
    """
    rank = tl.where(adapter < 0, 0, pick(ranks, adapter))
    m = tl.arange(0, BLOCK_M)
    r = first_rank + tl.arange(0, BLOCK_R)
    k = tl.arange(0, BLOCK_K)
    stride_fk, stride_fr = pick(strides_fk, adapter), pick(strides_fr, adapter)
    rows = tl.minimum(m, stop - start - 1)
    x_at = x + start.to(tl.int64) * stride_xm + rows[:, None] * stride_xm + k[None, :] * stride_xk
    f_at = pick(factors, adapter) + k[:, None] * stride_fk + r[None, :] * stride_fr
    total = tl.zeros((BLOCK_M, BLOCK_R), dtype=tl.float32)
    for done in range(0, tl.where(rank > first_rank, width, 0), BLOCK_K):
        if EVEN:
            x_tile = tl.load(x_at)
            f_tile = tl.load(f_at, mask=r[None, :] < rank, other=0.0)
        else:
            x_tile = tl.load(x_at, mask=k[None, :] < width - done, other=0.0)
            f_tile = tl.load(f_at, mask=(k[:, None] < width - done) & (r[None, :] < rank), other=0.0)
        if DROPOUT:
            x_tile = tl.where(kept(seed, start, done, pick(p, adapter), BLOCK_M, BLOCK_K), x_tile, 0.0)
        total = dot(x_tile, f_tile.to(x_tile.dtype), total, UPCAST, PRECISION)
        x_at += BLOCK_K * stride_xk
        f_at += BLOCK_K * stride_fk
    total *= scale
    if DROPOUT:
        total *= 1.0 / (1.0 - pick(p, adapter))
    out_at = out + start.to(tl.int64) * stride_om + m[:, None] * stride_om + r[None, :]
    inside = (m[:, None] < stop - start) & (r[None, :] < out_width)
    tl.store(out_at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def outer_tile(
    wide, stride_wm, stride_wn, narrow, stride_nm, scale, start, stop, first_wide, first_rank,
    partial, stride_pw, stride_pr, width, rank, seed, share,
    BLOCK_M: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_R: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """partial[first_wide:, first_rank:] = scale * wide[start:stop]^T @ narrow[start:stop], in float32.

    wide [M, width], narrow [M, >= rank], partial(w, r) [width, rank] by strides. Rows are added in their order.
    DROPOUT: wide is what the adapter sees of it, without `share` of its numbers.
    """
    m = tl.arange(0, BLOCK_M)
    w = first_wide + tl.arange(0, BLOCK_W)
    r = first_rank + tl.arange(0, BLOCK_R)
    wide_at = wide + start.to(tl.int64) * stride_wm + w.to(tl.int64)[:, None] * stride_wn + m[None, :] * stride_wm
    narrow_at = narrow + start.to(tl.int64) * stride_nm + m[:, None] * stride_nm + r[None, :]
    total = tl.zeros((BLOCK_W, BLOCK_R), dtype=tl.float32)
    for at in range(start, tl.where(first_rank < rank, stop, start), BLOCK_M):
        wide_tile = tl.load(wide_at, mask=(w[:, None] < width) & (m[None, :] < stop - at), other=0.0)
        if DROPOUT:
            wide_tile = tl.where(tl.trans(kept(seed, at, first_wide, share, BLOCK_M, BLOCK_W)), wide_tile, 0.0)
        narrow_tile_ = tl.load(narrow_at, mask=(m[:, None] < stop - at) & (r[None, :] < rank), other=0.0)
        total = dot(wide_tile, narrow_tile_.to(wide_tile.dtype), total, UPCAST, PRECISION)
        wide_at += BLOCK_M * stride_wm
        narrow_at += BLOCK_M * stride_nm
    if DROPOUT:
        total *= 1.0 / (1.0 - share)
    partial_at = partial + w[:, None] * stride_pw + r[None, :] * stride_pr
    tl.store(partial_at, total * scale, mask=(w[:, None] < width) & (r[None, :] < rank))

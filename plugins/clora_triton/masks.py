"""Dropout's mask in the kernels: a Philox number for every place of x, made in passing and never written down.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, 2011) with the seed's halves for
a key gives four numbers for the counter (column // 4, row, 0, 0), one for each of four neighbouring columns. So the
mask depends on seed, row and column alone, whatever the tiles, the segments and the strides.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def kept(seed, first_row, first_column, p, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """True where rows first_row.. and columns first_column.. (a multiple of 4) are kept, [BLOCK_M, BLOCK_N].

    The number's upper 24 bits, which float32 holds exactly, are a fraction of one; kept is what reaches p.
    """
    fours = first_column // 4 + tl.arange(0, BLOCK_N // 4)
    rows = first_row + tl.arange(0, BLOCK_M)
    nothing = tl.zeros((BLOCK_M, BLOCK_N // 4), dtype=tl.int32)
    u0, u1, u2, u3 = tl.philox(tl.load(seed), fours[None, :] + nothing, rows[:, None] + nothing, nothing, nothing)
    # joined axes come last and fastest: [.., 2, 2] holds u0, u1, u2, u3
    numbers = tl.reshape(tl.join(tl.join(u0, u2), tl.join(u1, u3)), (BLOCK_M, BLOCK_N))
    return (numbers >> 8).to(tl.float32) * (1.0 / 16777216.0) >= p


@triton.jit
def keep_kernel(out, seed, p, first_row, rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The mask itself, out [rows, columns], from row first_row of x on; program (column block, row block)."""
    row, column = tl.program_id(1) * BLOCK_M, tl.program_id(0) * BLOCK_N
    keep = kept(seed, first_row + row, column, p, BLOCK_M, BLOCK_N)
    m, n = row + tl.arange(0, BLOCK_M), column + tl.arange(0, BLOCK_N)
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    tl.store(out + m.to(tl.int64)[:, None] * columns + n[None, :], keep, mask=inside)

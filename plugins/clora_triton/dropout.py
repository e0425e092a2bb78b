"""The mask of a dropout, made from a seed whenever it is asked for and never kept.

On a GPU with Triton every number of x has a Philox number of its own (see `masks`), the same in every kernel. On a CPU,
for which torch offers no Philox, it is a stream of its generator, begun anew for every block of numbers so that no
segment needs another's, from which each number of x takes 16 bits.
"""

from __future__ import annotations

from functools import cache

import torch

from clora_triton.call import Call, Dropout
from clora_triton.installed import has_triton

#: numbers of x that share a generator's stream on a CPU; a multiple of 4
BLOCK = 1 << 16
_LOWEST = -(1 << 63)


def seed_on(device: torch.device, seed: int | torch.Tensor | None) -> torch.Tensor:
    """The seed as an int64 tensor of no axes on a device."""
    if isinstance(seed, torch.Tensor):
        return seed.detach().to(device)
    return torch.full((), 0 if seed is None else seed, dtype=torch.int64, device=device)


def keep_mask(call: Call, adapter: int, at: slice) -> torch.Tensor | None:
    """What an adapter sees of rows `at` of x [vectors, in], bool [rows, in]; None where it sees everything."""
    if call.dropout is None or not call.dropped(adapter):
        return None
    p, columns = call.dropped(adapter), call.x.shape[-1]
    if call.x.device.type == "cpu":
        lo, hi = at.start * columns, at.stop * columns
        return _drawn(int(call.dropout.seed), lo, hi, p).view(-1, columns)
    if _counted():
        return written(call.dropout, adapter, at, columns)
    return _whole(call.dropout, call.vectors, columns)[at] >= p


@cache
def _counted() -> bool:
    """True where there is Triton, whose kernels make the mask in passing, and every candidate then has theirs."""
    return has_triton()


def written(dropout: Dropout, adapter: int, at: slice, columns: int) -> torch.Tensor:
    """The kernels' own mask of rows `at`, for products that are not Triton's."""
    from clora_triton.launching import launch
    from clora_triton.masks import keep_kernel

    rows = at.stop - at.start
    out = torch.empty(rows, columns, dtype=torch.bool, device=dropout.seed.device)
    if out.numel():
        grid = (-(-columns // 128), -(-rows // 32))
        p = float(dropout.p[adapter])
        launch(keep_kernel, grid, out, out, dropout.seed, p, at.start, rows, columns, BLOCK_M=32, BLOCK_N=128)
    return out


def _drawn(seed: int, lo: int, hi: int, p: float) -> torch.Tensor:
    """True for each of the numbers lo..hi that is kept: 16 bits of its block's stream against p in steps of 2^-16."""
    keep = torch.empty(hi - lo, dtype=torch.bool)
    threshold = min(round(p * 65536), 65535) - 32768
    generator = torch.Generator()
    for block in range(lo // BLOCK, -(-hi // BLOCK)):
        first = block * BLOCK
        start, stop = max(lo, first), min(hi, first + BLOCK)
        generator.manual_seed(_mixed(seed, block))
        # torch draws one number after the other, so a shorter draw is the beginning of a longer one
        bits = torch.empty(-(-(stop - first) // 4), dtype=torch.int64).random_(_LOWEST, None, generator=generator)
        torch.ge(bits.view(torch.int16)[start - first : stop - first], threshold, out=keep[start - lo : stop - lo])
    return keep


def _mixed(seed: int, block: int) -> int:
    """A seed for a block's stream by SplitMix64 (Steele, Lea, Flood 2014), whose outputs near seeds do not share."""
    whole = (1 << 64) - 1
    z = (seed + 0x9E3779B97F4A7C15 * (block + 1)) & whole
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & whole
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & whole
    return z ^ (z >> 31)


def _whole(dropout: Dropout, rows: int, columns: int) -> torch.Tensor:
    """A GPU without Triton: uniform numbers for all of x, as its generator's order depends on how many are drawn."""
    device = dropout.seed.device
    generator = torch.Generator(device).manual_seed(int(dropout.seed))
    return torch.rand(rows, columns, generator=generator, device=device)

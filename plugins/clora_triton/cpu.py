"""The LoRA linear on a CPU: the adapter goes into the weight where many rows share it, else beside it in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch.nn.functional import linear

from clora_triton.call import Call, Grads, Needs, rows_as_matrix
from clora_triton.dropout import keep_mask
from clora_triton.merged import factor_gradients, merge, merges
from clora_triton.skinny import final, narrow, outer

#: (dL/dx [vectors, in], dL/dA and dL/dB of every adapter)
_Found: TypeAlias = "tuple[torch.Tensor | None, list[torch.Tensor | None], list[torch.Tensor | None]]"

#: multiplications of the base below which the Python of a backward pass of our own outweighs what it saves
SMALL = 100_000_000


def is_small(call: Call) -> bool:
    """True where one adapter serves all rows and the work is less than what calling Python once more costs."""
    if len(call.rows) != 1 or call.which[0] < 0 or call.x.device.type != "cpu" or call.dropout is not None:
        return False
    if call.vectors * call.weight.numel() > SMALL or not call.a[0].dtype == call.b[0].dtype == call.x.dtype:
        return False
    return not merges(call)


def small(call: Call) -> torch.Tensor:
    """y of a small call, differentiated by torch itself."""
    x, (a,), (b,) = call.x, call.a, call.b
    y = linear(x, call.weight, call.bias)
    flat, into = (x, y) if x.dim() == 2 else (x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1]))
    into.addmm_(flat @ a.T, b.T, alpha=call.scales[0])
    return y


class Packed:
    """Adds to the base's output in place, segment by segment, or merges; an `Implementation`."""

    def forward(self, call: Call, keep: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(y [B, ..., out], what is to be kept: s [vectors, rank], or the merged weight where the call merges)."""
        if merges(call):
            weight = merge(call)
            return linear(call.x, weight, call.bias), weight if keep else None
        y = linear(call.x, call.weight, call.bias)
        if keep:
            s = self.shrunk(call)
            return self.expand(call, y, s), s
        flat = y.view(-1, y.shape[-1])
        for i, here, at in _segments(call):  # one after the other, so that each one's s is still in the cache
            b = call.b[i].to(y.dtype)
            flat[at].addmm_(_shrunk(call, i, here, at), b.T, alpha=call.scales[i])
        return y, None

    def expand(self, call: Call, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """y + scale s B^T of every row's adapter, in place."""
        flat = y.view(-1, y.shape[-1])
        for i, _, at in _segments(call):
            b = call.b[i].to(y.dtype)
            flat[at].addmm_(s[at, : b.shape[1]], b.T, alpha=call.scales[i])
        return y

    def shrunk(self, call: Call) -> torch.Tensor:
        """x A^T of every row's adapter, [vectors, rank]; zero where no adapter fills it."""
        full = all(i >= 0 and call.a[i].shape[0] == call.rank for i in call.which)
        s = (torch.empty if full else torch.zeros)(call.vectors, call.rank, dtype=call.x.dtype, device=call.x.device)
        for i, here, at in _segments(call):
            _shrunk(call, i, here, at, s[at, : call.a[i].shape[0]])
        return s

    def backward(self, call: Call, dy: torch.Tensor, s: torch.Tensor | None, needs: Needs) -> Grads:
        """The gradients that are needed; what was not kept is made again."""
        g = rows_as_matrix(dy)
        dx, da, db = (self._merged if merges(call) else self._apart)(call, g, s, needs)
        return Grads(
            None if dx is None else dx.view(call.x.shape),
            outer(g, call.x, 1.0, None).to(g.dtype) if needs.weight else None,
            g.sum(0) if needs.bias else None,
            final(da, call.a, needs.a),
            final(db, call.b, needs.b),
        )

    def _merged(self, call: Call, g: torch.Tensor, weight: torch.Tensor | None, needs: Needs) -> _Found:
        dx = g @ (merge(call) if weight is None else weight) if needs.x else None
        da: list[torch.Tensor | None] = [None] * len(call.a)
        db: list[torch.Tensor | None] = [None] * len(call.b)
        i = call.which[0]
        da[i], db[i] = factor_gradients(call, g, needs.a[i], needs.b[i])
        return dx, da, db

    def _apart(self, call: Call, g: torch.Tensor, s: torch.Tensor | None, needs: Needs) -> _Found:
        if s is None and any(needs.b):
            s = self.shrunk(call)
        dx = g @ call.weight if needs.x else None
        da: list[torch.Tensor | None] = [None] * len(call.a)
        db: list[torch.Tensor | None] = [None] * len(call.b)
        for i, here, at in _segments(call):
            scale = call.scales[i]
            if dx is not None or needs.a[i]:
                ds = g[at] @ call.b[i].to(g.dtype)
                seen, kept = keep_mask(call, i, at), scale / (1 - call.dropped(i))
                if dx is not None and seen is None:
                    dx[at].addmm_(ds, call.a[i].to(g.dtype), alpha=scale)
                elif dx is not None and seen is not None:
                    dx[at].add_((ds @ call.a[i].to(g.dtype)).mul_(seen), alpha=kept)
                if needs.a[i]:
                    da[i] = outer(ds, call.x[here] if seen is None else _seen(call.x[here], seen), kept, da[i])
            if needs.b[i] and s is not None:
                # s^T dy is quicker than dy^T s, whose few columns would be written row by row
                db[i] = outer(s[at, : call.a[i].shape[0]], g[at], scale, db[i])
        return dx, da, [None if d is None else d.T for d in db]


def _shrunk(call: Call, i: int, here: slice, at: slice, out: torch.Tensor | None = None) -> torch.Tensor:
    """x A^T [vectors, r] of one segment's rows, without what its adapter does not see."""
    x, a, seen = call.x[here], call.a[i].to(call.x.dtype), keep_mask(call, i, at)
    if seen is None:
        return narrow(x, a, out)
    flat = _seen(x, seen)
    out = x.new_empty(flat.shape[0], a.shape[0]) if out is None else out
    return torch.addmm(out, flat, a.T, beta=0, alpha=1 / (1 - call.dropped(i)), out=out)


def _seen(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """x [B, ..., n] as a matrix [vectors, n] with zeros where the mask, bool of that shape, has them."""
    flat = x.new_empty(mask.shape)
    torch.mul(x, mask.view(x.shape), out=flat.view(x.shape))
    return flat


def _segments(call: Call) -> Iterator[tuple[int, slice, slice]]:
    """(adapter, its rows of x, the same as rows of a matrix) of every segment that has both an adapter and rows."""
    each = call.vectors // max(call.x.shape[0], 1)
    start = 0
    for count, i in zip(call.rows, call.which, strict=True):
        if i >= 0 and count:
            yield i, slice(start, start + count), slice(start * each, (start + count) * each)
        start += count

"""The LoRA linear on a CPU: the adapter goes into the weight where many rows share it, else beside it in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import linear

from clora_triton.call import Call, Grads, Needs, matrix, rows_as_matrix

#: multiplications of the base below which the Python of a backward pass of our own outweighs what it saves
SMALL = 20_000_000
#: the same where merging saves more
SMALL_MERGED = 10_000_000


def merges(call: Call) -> bool:
    """True where one product with W + scale B A is cheaper than one with W and two with the factors.

    The sum costs out x in x r multiplications, the factors' way (out + in) x r for every row and another pass over y;
    the backward pass makes the sum again, hence the factor 3. Only where one adapter serves all rows: B = 0 then gives
    the frozen linear's own bits, which products over parts of the rows need not have. Half precision would round the
    adapter away, so it never does.
    """
    x = call.x
    if len(call.rows) != 1 or call.which[0] < 0 or x.device.type != "cpu":
        return False
    outputs, inputs = call.weight.shape
    enough = call.vectors * (outputs + inputs) > 3 * outputs * inputs and call.vectors * outputs * inputs > SMALL_MERGED
    return enough and x.dtype in (torch.float32, torch.float64)


def is_small(call: Call) -> bool:
    """True where one adapter serves all rows and the work is less than what calling Python once more costs."""
    if len(call.rows) != 1 or call.which[0] < 0 or call.x.device.type != "cpu":
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
        """(y [B, ..., out], s [vectors, rank] where it is to be kept)."""
        if merges(call):
            return linear(call.x, self.merged(call), call.bias), self.shrunk(call) if keep else None
        y = linear(call.x, call.weight, call.bias)
        if keep:
            s = self.shrunk(call)
            return self.expand(call, y, s), s
        flat = y.view(-1, y.shape[-1])
        for i, here, at in _segments(call):  # one after the other, so that each one's s is still in the cache
            b = call.b[i].to(y.dtype)
            flat[at].addmm_(_narrow(call.x[here], call.a[i].to(y.dtype)), b.T, alpha=call.scales[i])
        return y, None

    def expand(self, call: Call, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """y + scale s B^T of every row's adapter, in place."""
        flat = y.view(-1, y.shape[-1])
        for i, _, at in _segments(call):
            b = call.b[i].to(y.dtype)
            flat[at].addmm_(s[at, : b.shape[1]], b.T, alpha=call.scales[i])
        return y

    def merged(self, call: Call) -> torch.Tensor:
        """W + scale B A of the only segment's adapter."""
        i, dtype = call.which[0], call.weight.dtype
        return torch.addmm(call.weight, call.b[i].to(dtype), call.a[i].to(dtype), alpha=call.scales[i])

    def shrunk(self, call: Call) -> torch.Tensor:
        """x A^T of every row's adapter, [vectors, rank]; zero where no adapter fills it."""
        full = all(i >= 0 and call.a[i].shape[0] == call.rank for i in call.which)
        s = (torch.empty if full else torch.zeros)(call.vectors, call.rank, dtype=call.x.dtype, device=call.x.device)
        for i, here, at in _segments(call):
            a = call.a[i].to(s.dtype)
            _narrow(call.x[here], a, s[at, : a.shape[0]])
        return s

    def backward(self, call: Call, dy: torch.Tensor, s: torch.Tensor | None, needs: Needs) -> Grads:
        """The gradients that are needed; s is made again where it was not kept."""
        g = rows_as_matrix(dy)
        if s is None and any(needs.b):
            s = self.shrunk(call)
        apart = needs.x and not merges(call)
        dx = g @ (call.weight if apart else self.merged(call)) if needs.x else None
        da: list[torch.Tensor | None] = [None] * len(call.a)
        db: list[torch.Tensor | None] = [None] * len(call.b)
        for i, here, at in _segments(call):
            scale = call.scales[i]
            if apart or needs.a[i]:
                ds = g[at] @ call.b[i].to(g.dtype)
                if apart and dx is not None:
                    dx[at].addmm_(ds, call.a[i].to(g.dtype), alpha=scale)
                if needs.a[i]:
                    da[i] = _outer(ds, call.x[here], scale, da[i])
            if needs.b[i] and s is not None:
                # s^T dy is quicker than dy^T s, whose few columns would be written row by row
                db[i] = _outer(s[at, : call.a[i].shape[0]], g[at], scale, db[i])
        return Grads(
            None if dx is None else dx.view(call.x.shape),
            _outer(g, call.x, 1.0, None).to(g.dtype) if needs.weight else None,
            g.sum(0) if needs.bias else None,
            _final(da, call.a, needs.a),
            _final([None if d is None else d.T for d in db], call.b, needs.b),
        )


def _narrow(x: torch.Tensor, a: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """x A^T [vectors, r] of x [B, ..., in] where it lies."""
    flat = matrix(x)
    if flat is not None:
        return torch.mm(flat, a.T, out=out)
    if out is None:
        out = x.new_empty(x.numel() // x.shape[-1], a.shape[0])
    for part, rows in _planes(x):
        torch.mm(part, a.T, out=out[rows])
    return out


def _outer(left: torch.Tensor, x: torch.Tensor, scale: float, into: torch.Tensor | None) -> torch.Tensor:
    """scale left^T x added to `into`, at least float32; left [vectors, m] and x [B, ..., n], where it lies."""
    if x.dtype not in (torch.float32, torch.float64):
        left, x = left.float(), x.float()
    for part, rows in _planes(x):
        if into is None:
            into = torch.empty(left.shape[1], x.shape[-1], dtype=x.dtype, device=x.device)
            torch.addmm(into, left[rows].T, part, beta=0, alpha=scale, out=into)
        else:
            into.addmm_(left[rows].T, part, alpha=scale)
    return torch.zeros(left.shape[1], x.shape[-1], dtype=x.dtype, device=x.device) if into is None else into


def _final(
    found: list[torch.Tensor | None], factors: Sequence[torch.Tensor], needed: Sequence[bool]
) -> list[torch.Tensor | None]:
    """Contiguous gradients in the factors' types; zero for an adapter that no row used."""
    grads: list[torch.Tensor | None] = []
    for grad, factor, wanted in zip(found, factors, needed, strict=True):
        if not wanted:
            grads.append(None)
        else:
            grads.append(torch.zeros_like(factor) if grad is None else grad.to(factor.dtype).contiguous())
    return grads


def _segments(call: Call) -> Iterator[tuple[int, slice, slice]]:
    """(adapter, its rows of x, the same as rows of a matrix) of every segment that has both an adapter and rows."""
    each = call.vectors // max(call.x.shape[0], 1)
    start = 0
    for count, i in zip(call.rows, call.which, strict=True):
        if i >= 0 and count:
            yield i, slice(start, start + count), slice(start * each, (start + count) * each)
        start += count


def _planes(x: torch.Tensor) -> Iterator[tuple[torch.Tensor, slice]]:
    """The matrices [vectors, n] of which x [..., n] is a stack, with their rows' places; nothing is copied."""
    flat = matrix(x)
    if flat is not None:
        yield flat, slice(0, flat.shape[0])
        return
    at = 0
    for part in x:
        for plane, _ in _planes(part):
            yield plane, slice(at, at + plane.shape[0])
            at += plane.shape[0]

"""The ways to compute a LoRA linear on a GPU, and on a CPU those that can; all take and give the same tensors."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from clora_triton.call import Call, Grads, Implementation, Needs, rows_as_matrix
from clora_triton.cpu import Packed
from clora_triton.installed import has_triton
from clora_triton.merged import merge


class SideStream(Packed):
    """cuBLAS alone; the shrink, which waits for memory, runs beside the base's product, which does not."""

    def forward(self, call: Call, keep: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(y, s), with x A^T made on a stream of its own."""
        if call.x.device.type != "cuda":
            return super().forward(call, keep)
        side, here = _side(call.x.device), torch.cuda.current_stream(call.x.device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            s = self.shrunk(call)
        y = linear(call.x, call.weight, call.bias)
        here.wait_stream(side)
        for tensor in (call.x, *call.a):
            tensor.record_stream(side)
        s.record_stream(here)
        return self.expand(call, y, s), s if keep else None


class Merged(Packed):
    """W + scale B A made for each call: quick without gradients where one adapter serves very many rows.

    Rounded to the weight's type: in half precision small changes are lost, so nothing chooses it there unasked.
    """

    def forward(self, call: Call, keep: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(y, s); a batch of several segments, or one with dropout, is computed as by `Packed`."""
        if keep or len(call.rows) != 1 or call.which[0] < 0 or call.dropout is not None:
            return super().forward(call, keep)
        return linear(call.x, merge(call), call.bias), None


class Parts:
    """The base by cuBLAS, everything beside it by Triton: each adapter's rows where they lie, dy read once."""

    def forward(self, call: Call, keep: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(y, s)."""
        from clora_triton.expand import expand_add
        from clora_triton.shrink import shrink

        x, rows = rows_as_matrix(call.x), call.inner()
        s = shrink(x, call.a, call.which, rows, dropout=call.dropout)
        y = linear(x, call.weight, call.bias)
        expand_add(y, s, call.b, call.scales, call.which, rows)
        return y.view(*call.x.shape[:-1], y.shape[-1]), s if keep else None

    def backward(self, call: Call, dy: torch.Tensor, s: torch.Tensor | None, needs: Needs) -> Grads:
        """The gradients that are needed."""
        from clora_triton.backward import backward_s_and_db, da
        from clora_triton.shrink import shrink

        g, x, rows = rows_as_matrix(dy), rows_as_matrix(call.x), call.inner()
        if s is None and any(needs.b):
            s = shrink(x, call.a, call.which, rows, dropout=call.dropout)
        ds, db = backward_s_and_db(g, s, call.b, call.scales, call.which, rows, wanted=needs.b)
        ranks = [a.shape[0] for a in call.a]
        found: list[torch.Tensor | None] = [None] * len(ranks)
        if any(needs.a):
            found = da(ds, x, call.which, rows, ranks, wanted=needs.a, dropout=call.dropout)
        dx = self.dx(call, g, ds, rows).view(call.x.shape) if needs.x else None
        return Grads(
            dx,
            g.T @ x if needs.weight else None,
            g.sum(0) if needs.bias else None,
            [None if d is None else d.to(a.dtype) for d, a in zip(found, call.a, strict=True)],
            [None if d is None else d.to(b.dtype) for d, b in zip(db, call.b, strict=True)],
        )

    def dx(self, call: Call, g: torch.Tensor, ds: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """dy W + ds A; ds is scaled already."""
        from clora_triton.expand import expand_add

        factors = [a.T for a in call.a]
        return expand_add(g @ call.weight, ds, factors, None, call.which, rows, dropout=call.dropout)


class Fused(Parts):
    """Base and expand in one Triton kernel: y is written once and never read back."""

    def forward(self, call: Call, keep: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(y, s)."""
        from clora_triton.fused import fused_linear
        from clora_triton.shrink import shrink

        x, rows = rows_as_matrix(call.x), call.inner()
        s = shrink(x, call.a, call.which, rows, dropout=call.dropout)
        y = fused_linear(x, call.weight, call.bias, s, call.b, call.scales, call.which, rows)
        return y.view(*call.x.shape[:-1], y.shape[-1]), s if keep else None

    def dx(self, call: Call, g: torch.Tensor, ds: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """dy W + ds A by the same kernel."""
        from clora_triton.fused import fused_dx

        return fused_dx(g, call.weight, ds, call.a, call.which, rows, dropout=call.dropout)


_STREAMS: dict[torch.device, torch.cuda.Stream] = {}


def _side(device: torch.device) -> torch.cuda.Stream:
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)
    return _STREAMS[device]


#: by the name that `lora_linear(kernel=...)`, benchmarks and the cache on disk know them by
CANDIDATES: dict[str, Implementation] = {
    "addmm": Packed(),
    "side_stream": SideStream(),
    "merged": Merged(),
    "parts": Parts(),
    "fused": Fused(),
}
TRITON = ("parts", "fused")


def usable(call: Call, grad: bool, kernel: str) -> tuple[str, ...]:
    """The candidates to choose from for a call on a GPU, the one that works everywhere first.

    `kernel` is "auto" or "triton". A merged weight is among them only where nothing is lost by it.
    """
    triton = TRITON if has_triton() else ()
    if kernel == "triton":
        return triton
    exact = not grad and call.x.dtype == torch.float32 and len(call.rows) == 1 and call.dropout is None
    return ("addmm", "side_stream", *(("merged",) if exact else ()), *triton)

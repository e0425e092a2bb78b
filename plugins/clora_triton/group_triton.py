"""A group of linears by the Triton kernels: x is read once forward and once for dA, whatever linears share it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clora_triton.call import Call, Grads, Needs, rows_as_matrix
from clora_triton.group_torch import Backward, Found, base, empty, shaped, sum_dx
from clora_triton.stacks import Group


class Parts:
    """Base products by cuBLAS, everything beside them by Triton; the table has to be aligned. A `Together`."""

    def forward(self, group: Group, keep: bool) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """(y [B, ..., out] of each linear, s [vectors, rank])."""
        x = rows_as_matrix(group.x)
        s = _shrunk(group, x)
        ys = [
            self.output(call, x, mine) if call.a else base(call.x, x, call.weight, call.bias)
            for call, mine in zip(group.calls, _by_linear(group, s), strict=True)
        ]
        return ys, s if keep else None

    def output(self, call: Call, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """One linear's y from its columns of the shrunk activations."""
        from clora_triton.expand import expand_add

        y = base(call.x, x, call.weight, call.bias)
        expand_add(y.view(-1, y.shape[-1]), s, call.b, call.scales, call.which, call.inner())
        return y

    def backward(
        self, group: Group, dys: Sequence[torch.Tensor | None], s: torch.Tensor | None, needs: Sequence[Needs]
    ) -> tuple[torch.Tensor | None, list[Grads]]:
        """dx and every linear's gradients; a linear's dy is read once for ds and dB."""
        from clora_triton.backward import backward_s_and_db, da

        work = Backward(group, [None if dy is None else rows_as_matrix(dy) for dy in dys], needs)
        x, rows = rows_as_matrix(group.x), group.calls[0].inner()
        if s is None and any(any(each.b) for each in needs):
            s = _shrunk(group, x)
        shrunk: Sequence[torch.Tensor | None] = [None] * len(group.calls) if s is None else _by_linear(group, s)
        ds, db = x.new_empty(len(x), group.rank), empty(group)
        for i, (call, mine) in enumerate(zip(group.calls, _by_linear(group, ds), strict=True)):
            g = work.gs[i]
            if g is None:
                mine.zero_()
            elif call.a:
                _, found = backward_s_and_db(
                    g, shrunk[i], call.b, call.scales, call.which, rows, wanted=needs[i].b, ds=mine
                )
                db[i] = [None if d is None else d.T for d in found]
        sums: list[torch.Tensor | None] = [None] * len(group.stacks)
        wanted = [any(map(work.wants_a, parts)) for parts in group.stacks]
        if any(wanted):
            sums = da(ds, x, group.which, rows, [parts[-1].stop for parts in group.stacks], wanted=wanted)
        dx = self.dx(work, ds, rows) if needs[0].x else None
        return shaped(work, dx, _split(group, sums), db)

    def dx(self, work: Backward, ds: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """The sum of dy W over the linears, and ds A of every row's stack."""
        from clora_triton.expand import expand_add

        dx = sum_dx(work, [call.weight for call in work.group.calls])
        return expand_add(dx, ds, [a.T for a in _stacked(work.group)], None, work.group.which, rows)


class Fused(Parts):
    """Base product and expand of a linear in one kernel."""

    def output(self, call: Call, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """One linear's y from its columns of the shrunk activations."""
        from clora_triton.fused import fused_linear

        y = fused_linear(x, call.weight, call.bias, s, call.b, call.scales, call.which, call.inner())
        # not `view`: autograd forbids to write into a view that a function returns
        return torch.ops.aten._unsafe_view.default(y, (*call.x.shape[:-1], y.shape[-1]))


PARTS, FUSED = Parts(), Fused()


def _stacked(group: Group) -> list[torch.Tensor]:
    """The factors A of every stack as one, in x's type, as the kernels would round them."""
    return [group.factor(parts, group.x.dtype) for parts in group.stacks]


def _shrunk(group: Group, x: torch.Tensor) -> torch.Tensor:
    """x A^T of every row's stack, [vectors, rank]: one launch, in which x is read from memory once."""
    from clora_triton.shrink import shrink

    return shrink(x, _stacked(group), group.which, group.calls[0].inner(), x.new_empty(len(x), group.rank))


def _by_linear(group: Group, packed: torch.Tensor) -> list[torch.Tensor]:
    """Each linear's own columns of what is packed for all."""
    found: list[torch.Tensor] = []
    at = 0
    for call in group.calls:
        found.append(packed[:, at : at + call.rank])
        at += call.rank
    return found


def _split(group: Group, sums: Sequence[torch.Tensor | None]) -> Found:
    """dA of every stack as one gradient for each adapter of each linear."""
    found = empty(group)
    for parts, total in zip(group.stacks, sums, strict=True):
        if total is None:
            continue
        for part in parts:
            mine = total[part.start : part.stop]
            known = found[part.linear][part.adapter]
            found[part.linear][part.adapter] = mine if known is None else known.add_(mine)
    return found

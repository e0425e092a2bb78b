"""A group of linears by torch's own products: one shrink with all factors A, one dA, one dx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from clora_triton.call import Grads, Needs, rows_as_matrix
from clora_triton.skinny import final, narrow, outer
from clora_triton.stacks import Group, Part, neighbours

#: a gradient of each adapter of each linear, float32 at least
Found = list[list["torch.Tensor | None"]]


class Backward(NamedTuple):
    """What a backward pass knows: dL/dy as matrices, None where nobody uses that y, and what is asked of it."""

    group: Group
    gs: Sequence[torch.Tensor | None]
    needs: Sequence[Needs]

    def used(self, part: Part) -> bool:
        """True where the part's output has a gradient."""
        return self.gs[part.linear] is not None

    def wants_a(self, part: Part) -> bool:
        """True where the gradient of the part's A is wanted and not zero."""
        return self.used(part) and self.needs[part.linear].a[part.adapter]

    def wants_b(self, part: Part) -> bool:
        """True where the gradient of the part's B is wanted and not zero."""
        return self.used(part) and self.needs[part.linear].b[part.adapter]


class Stacked:
    """Adds to every linear's output in place what the stacked shrink gives; a `Together`."""

    def forward(self, group: Group, keep: bool) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """(y [B, ..., out] of each linear, s [vectors, rank] where it is to be kept)."""
        flat = rows_as_matrix(group.x)
        ys = [base(group.x, flat, call.weight, call.bias) for call in group.calls]
        s = columns(group, flat) if keep else None
        for stack, _, at in group.segments():
            parts = group.stacks[stack]
            shrunk = torch.mm(
                flat[at], group.factor(parts, flat.dtype).T, out=None if s is None else s[at, : parts[-1].stop]
            )
            for part in parts:
                call, y = group.calls[part.linear], ys[part.linear]
                b = call.b[part.adapter].to(y.dtype)
                into = y.view(-1, y.shape[-1])[at]
                into.addmm_(shrunk[:, part.start : part.stop], b.T, alpha=call.scales[part.adapter])
        return ys, s

    def backward(
        self, group: Group, dys: Sequence[torch.Tensor | None], s: torch.Tensor | None, needs: Sequence[Needs]
    ) -> tuple[torch.Tensor | None, list[Grads]]:
        """dx and every linear's gradients; s is made again where it was not kept."""
        work = Backward(group, [None if dy is None else rows_as_matrix(dy) for dy in dys], needs)
        dx = sum_dx(work, [call.weight for call in group.calls]) if needs[0].x else None
        sums, db = Sums(), empty(group)
        for stack, here, at in group.segments():
            narrow_gradients(work, stack, here, at, s, dx, sums, db)
        return shaped(work, dx, sums.split(group), db)


class Sums(dict[tuple[int, int], "tuple[list[Part], torch.Tensor]"]):
    """dA of neighbouring parts as one sum over segments, by stack and first column."""

    def split(self, group: Group) -> Found:
        """The sums, one for each adapter of each linear."""
        found = empty(group)
        for parts, total in self.values():
            for part in parts:
                mine = total[part.start - parts[0].start : part.stop - parts[0].start]
                known = found[part.linear][part.adapter]
                found[part.linear][part.adapter] = mine if known is None else known.add_(mine)
        return found


def narrow_gradients(
    work: Backward,
    stack: int,
    here: slice,
    at: slice,
    s: torch.Tensor | None,
    dx: torch.Tensor | None,
    sums: Sums,
    db: Found,
) -> None:
    """What one segment adds to dx (where that is given), dA and dB: ds of all its adapters, then each product once."""
    group, x = work.group, work.group.x
    parts = group.stacks[stack]
    shown = work.used if dx is not None else work.wants_a
    if any(map(shown, parts)):
        ds = x.new_empty(at.stop - at.start, parts[-1].stop)
        for part in filter(shown, parts):
            call, g = group.calls[part.linear], work.gs[part.linear]
            assert g is not None
            into, b = ds[:, part.start : part.stop], call.b[part.adapter].to(g.dtype)
            torch.addmm(into, g[at], b, beta=0, alpha=call.scales[part.adapter], out=into)
        for run in neighbours(parts, work.used) if dx is not None else []:
            assert dx is not None
            factor = group.factor(run, ds.dtype, run[0].start)
            dx[at].addmm_(ds[:, run[0].start : run[-1].stop], factor)
        for run in neighbours(parts, work.wants_a):
            key = stack, run[0].start
            known = sums[key][1] if key in sums else None
            sums[key] = run, outer(ds[:, run[0].start : run[-1].stop], x[here], 1.0, known)
    for run in neighbours(parts, work.wants_b):
        first = run[0].start
        kept = narrow(x[here], group.factor(run, x.dtype, first)) if s is None else s[at, first : run[-1].stop]
        for part in run:
            g, scale = work.gs[part.linear], group.calls[part.linear].scales[part.adapter]
            assert g is not None
            # s^T dy is quicker than dy^T s, whose few columns would be written row by row
            left, known = kept[:, part.start - first : part.stop - first], db[part.linear][part.adapter]
            db[part.linear][part.adapter] = outer(left, g[at], scale, known)


def base(x: torch.Tensor, flat: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x W^T + b as a tensor of its own, since autograd forbids to write into a view that a function returns."""
    y = flat.new_empty(*x.shape[:-1], weight.shape[0])
    out = y.view(-1, y.shape[-1])
    if bias is None:
        torch.mm(flat, weight.T, out=out)
    else:
        torch.addmm(bias, flat, weight.T, out=out)
    return y


def columns(group: Group, flat: torch.Tensor) -> torch.Tensor:
    """Room for the shrunk activations; zeros where no adapter fills it."""
    return (torch.empty if group.full else torch.zeros)(len(flat), group.rank, dtype=flat.dtype, device=flat.device)


def sum_dx(work: Backward, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of dy W over the linears, [vectors, in]: one tensor, to which every product is added in place."""
    dx: torch.Tensor | None = None
    for g, weight in zip(work.gs, weights, strict=True):
        if g is not None:
            dx = g @ weight if dx is None else dx.addmm_(g, weight)
    x = work.group.x
    return x.new_zeros(work.group.calls[0].vectors, x.shape[-1]) if dx is None else dx


def empty(group: Group) -> Found:
    """No gradient for any adapter yet."""
    return [[None] * len(call.a) for call in group.calls]


def shaped(work: Backward, dx: torch.Tensor | None, da: Found, db: Found) -> tuple[torch.Tensor | None, list[Grads]]:
    """Gradients in the shapes and types of what they belong to; zero for an adapter that no row used."""
    grads: list[Grads] = []
    for call, g, needs, its_da, its_db in zip(work.group.calls, work.gs, work.needs, da, db, strict=True):
        weight = outer(g, call.x, 1.0, None).to(g.dtype) if needs.weight and g is not None else None
        bias = g.sum(0) if needs.bias and g is not None else None
        right_way_round = [None if d is None else d.T for d in its_db]
        grads.append(Grads(None, weight, bias, final(its_da, call.a, needs.a), final(right_way_round, call.b, needs.b)))
    return None if dx is None else dx.view(work.group.x.shape), grads

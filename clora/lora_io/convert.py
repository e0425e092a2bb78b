"""LoKr, LoHa and DoRA as plain LoRA, with the error that it costs.

PEFT's convert_to_lora needs its own layers around a loaded base and decomposes the whole weight. Here the delta's
structure is used: a Kronecker product's singular values are the products of its factors', and a Hadamard product of two
low-rank matrices has low rank itself, so neither is ever built. DoRA's delta is: its rank is full.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import torch
from attrs import frozen

from clora.lora_io.kinds import MAX_RANK, Entry
from clora.lora_io.norms import peak

#: relative Frobenius error that is small beside bfloat16's rounding of the factors, 2^-9
TOLERANCE = 1e-3
#: beyond this many numbers of the smaller side, the singular vectors are found by subspace iteration
EXACT = 1024
OVERSAMPLING = 16
ITERATIONS = 2

Tensors = Mapping[str, torch.Tensor]


@frozen
class Limits:
    """How a delta is cut to a LoRA: the smallest rank whose relative error is within `tolerance`, at most `rank`."""

    rank: int = MAX_RANK
    tolerance: float = TOLERANCE


@frozen
class Conversion:
    """What a LoRA made from something else lost: Frobenius norms of the delta and of what is missing of it."""

    rank: int
    norm: float
    error: float

    @property
    def relative(self) -> float:
        """error / norm; 0 for a delta that is zero."""
        return self.error / self.norm if self.norm else 0.0


@frozen(eq=False)
class Spectrum:
    """u [out, k], s [k] falling, v [k, in] with delta = u s v, and the norm of what lies outside of it."""

    u: torch.Tensor
    s: torch.Tensor
    v: torch.Tensor
    outside: float = 0.0


def converted(
    entry: Entry, tensors: Tensors, scale: float, limits: Limits, weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, Conversion]:
    """A [r, in] and B [out, r] in float32 on the CPU, scale included; `weight` [out, in] is the base's, for DoRA.

    Raises OverflowError where the delta is beyond float32.
    """
    parts = {part: tensors[name] for part, name in entry.parts.items() if part != "alpha"}
    if entry.magnitude is not None:
        floats = {part: tensor.float() for part, tensor in parts.items()}
        assert weight is not None  # the reader refuses before
        change = dora_delta(parts, delta(entry.kind, floats) * scale, weight)
        if not bool(change.isfinite().all()):
            raise OverflowError("its delta is beyond the range of float32")
        return _cut(_of_matrix(change, limits.rank), 1.0, limits)
    parts, scale = _unit(parts, scale)
    if entry.kind == "lokr":
        return _cut(_of_kron(parts, limits.rank), scale, limits)
    return _cut(_of_hadamard(parts, entry.most, limits.rank), scale, limits)


def _unit(parts: Tensors, scale: float) -> tuple[Tensors, float]:
    """Factors in float64 with a largest number of 1, and the scale that makes up for it: no square overflows."""
    found: dict[str, torch.Tensor] = {}
    for part, tensor in parts.items():
        top = peak(tensor) or 1.0
        found[part], scale = tensor.double() / top, scale * top
    return found, scale


def delta(kind: str, parts: Tensors) -> torch.Tensor:
    """The whole change of a linear's weight before its scale, [out, in], in the type of its parts."""
    if kind == "lora":
        return parts["b"] @ parts["a"]
    if kind == "lokr":
        return torch.kron(factor(parts, "lokr_w1", None), factor(parts, "lokr_w2", "lokr_t2"))
    return factor(parts, "hada_w1", "hada_t1") * factor(parts, "hada_w2", "hada_t2")


def dora_delta(parts: Tensors, change: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """m (W + change) / |W + change| - W, [out, in], on the weight's device (arXiv:2402.09353, equation 5).

    The norm is of each row, as PEFT has it, unless the magnitude is [1, in] (LyCORIS without wd_on_out): then of each
    column. A zero row stays zero.
    """
    weight = weight.detach().float()
    magnitude = parts["magnitude"].to(weight.device, torch.float32)
    new = weight + change.to(weight.device)
    by_column = magnitude.ndim == 2 and magnitude.shape == (1, weight.shape[1]) and weight.shape[1] != 1
    norm = new.norm(dim=0 if by_column else 1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return new * (magnitude.reshape(norm.shape) / norm) - weight


def factor(parts: Tensors, name: str, core: str | None) -> torch.Tensor:
    """One factor of a LoKr or LoHa as a whole matrix, from its halves where it is stored so."""
    if name in parts:
        return parts[name]
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    return a.T @ parts[core] @ b if core is not None and core in parts else a @ b


def _of_kron(parts: Tensors, rank: int) -> Spectrum:
    """The largest singular values of a Kronecker product: the largest products of its factors' ones."""
    u1, s1, v1 = torch.linalg.svd(factor(parts, "lokr_w1", None), full_matrices=False)
    u2, s2, v2 = torch.linalg.svd(factor(parts, "lokr_w2", "lokr_t2"), full_matrices=False)
    products = torch.outer(s1, s2).flatten()
    s, order = products.sort(descending=True)
    first, second = order[:rank] // len(s2), order[:rank] % len(s2)
    u = torch.einsum("ak,bk->abk", u1[:, first], u2[:, second]).flatten(0, 1)
    v = torch.einsum("ka,kb->kab", v1[first], v2[second]).flatten(1)
    return Spectrum(u, s[:rank], v, float(s[rank:].norm()))


def _of_hadamard(parts: Tensors, most: int, rank: int) -> Spectrum:
    """(x y) * (z w) is the product of the columns' products [out, r r'] and the rows' ones [r r', in]."""
    left1, right1 = _halves(parts, "hada_w1", "hada_t1")
    left2, right2 = _halves(parts, "hada_w2", "hada_t2")
    if left1.shape[1] * left2.shape[1] > most:  # no saving any more
        return _of_matrix((left1 @ right1) * (left2 @ right2), rank)
    left = torch.einsum("or,os->ors", left1, left2).flatten(1)
    right = torch.einsum("ri,si->rsi", right1, right2).flatten(0, 1)
    q, r = torch.linalg.qr(left)
    p, t = torch.linalg.qr(right.T)
    u, s, v = torch.linalg.svd(r @ t.T, full_matrices=False)
    return Spectrum(q @ u, s, v @ p.T)


def _halves(parts: Tensors, name: str, core: str) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    return (a.T, parts[core] @ b) if core in parts else (a, b)


def _of_matrix(matrix: torch.Tensor, rank: int) -> Spectrum:
    """All singular values of a small matrix, the first `rank` of a large one (Halko et al., arXiv:0909.4061)."""
    if min(matrix.shape) <= EXACT:
        return Spectrum(*torch.linalg.svd(matrix.double(), full_matrices=False))
    # a generator of its own, where torch.svd_lowrank draws from the global one: teachers are read by threads too
    random = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], min(rank + OVERSAMPLING, *matrix.shape), generator=random)
    basis = torch.linalg.qr(matrix @ start.to(matrix)).Q
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    u, s, v = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    u = basis @ u
    return Spectrum(u, s, v, float((matrix - (u * s) @ v).double().norm()))


def _cut(spectrum: Spectrum, scale: float, limits: Limits) -> tuple[torch.Tensor, torch.Tensor, Conversion]:
    """`scale` times the smallest rank, at least 1, whose error is within the tolerance, or the highest allowed."""
    s = spectrum.s.double()
    # what is left behind at rank k, summed from the small end: a difference of large sums would drown it
    tail = torch.cat([s.square().flip(0).cumsum(0).flip(0), s.new_zeros(1)]) + spectrum.outside**2
    norm = sqrt(float(tail[0]))
    within = (tail.sqrt() <= limits.tolerance * norm).nonzero()
    rank = int(within[0]) if len(within) else len(s)
    rank = max(1, min(rank, limits.rank, len(s)))
    root = s[:rank].sqrt() * sqrt(abs(scale))
    a = (root[:, None] * spectrum.v[:rank].double()).float()
    b = (spectrum.u[:, :rank].double() * root * (-1 if scale < 0 else 1)).float()
    if not bool(a.isfinite().all() & b.isfinite().all()):
        raise OverflowError("its delta is beyond the range of float32")
    cost = Conversion(rank, norm * abs(scale), sqrt(float(tail[rank])) * abs(scale))
    return a.cpu().contiguous(), b.cpu().contiguous(), cost

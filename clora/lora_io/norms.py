"""|delta| in the Frobenius norm, in float64 and without building a delta.

Factors are brought to a largest number of 1 first, so that no square overflows or vanishes: a norm beyond float64 is
infinity, never NaN and never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite, prod, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from clora.lora_io.kinds import Entry

#: so many numbers are in float64 at once
CHUNK = 1 << 22

Tensors = Mapping[str, "torch.Tensor"]


def peak(tensor: torch.Tensor) -> float:
    """The largest magnitude in a tensor, 0.0 for none; infinity where one is not finite."""
    if not tensor.numel():
        return 0.0
    least, greatest = (float(end) for end in _wide(tensor).aminmax())
    top = max(abs(least), abs(greatest))
    return top if isfinite(least) and isfinite(greatest) else inf


def product_norm(a: torch.Tensor, b: torch.Tensor) -> float:
    """|b a| of a [r, in] and b [out, r] from the Gram matrices: |b a|^2 = tr(b^T b a a^T); infinity beyond float64."""
    of_a, of_b = peak(a), peak(b)
    if not of_a or not of_b or not (isfinite(of_a) and isfinite(of_b)):
        return _times(0.0 if not of_a or not of_b else 1.0, of_a, of_b)
    if a.shape[0] > min(a.shape[1], b.shape[0]):  # the product is smaller than a Gram matrix
        return _times(norm(b.double() / of_b @ (a.double() / of_a)), of_a, of_b)
    trace = float((_gram(a, of_a) * _gram(b.T, of_b)).sum())
    return _times(sqrt(trace) if trace > 0 else 0.0, of_a, of_b)


def norm(matrix: torch.Tensor) -> float:
    """|matrix|; infinity beyond float64."""
    top = peak(matrix)
    if not top or not isfinite(top):
        return top
    squares = 0.0
    for part in _wide(matrix).flatten().split(CHUNK):
        squares += float((part.double() / top).square().sum())
    return _times(sqrt(squares), top)


def entry_norm(entry: Entry, tensors: Tensors, scale: float) -> float | None:
    """|scale * delta| of one linear's LoRA, LoKr or LoHa; None for DoRA, which only the base's weight can tell."""
    if entry.magnitude is not None:
        return None
    if entry.kind == "lora":
        return _times(product_norm(*entry.factors(tensors)), scale)
    parts = {part: tensors[name] for part, name in entry.parts.items() if part != "alpha"}
    if entry.kind == "lokr":  # |w1 kron w2| = |w1| |w2|
        return _times(_factor_norm(parts, "lokr_w1", None), _factor_norm(parts, "lokr_w2", "lokr_t2"), scale)
    return _times(_hadamard_norm(parts), scale)


def entry_bound(entry: Entry, tensors: Tensors, scale: float) -> float | None:
    """No |scale * delta| of the entry is larger, and it is 0 only where the delta is; one pass without any product.

    Of a LoRA it is the sum of |b_k| |a_k| over its ranks; None for DoRA.
    """
    if entry.magnitude is not None:
        return None
    if entry.kind == "lora":
        a, b = entry.factors(tensors)
        of_a, of_b = peak(a), peak(b)
        if not of_a or not of_b or not (isfinite(of_a) and isfinite(of_b)):
            return _times(1.0 if of_a and of_b else 0.0, of_a, of_b, scale)
        ranks = float((_lengths(a, of_a) * _lengths(b.T, of_b)).sum())
        return _times(ranks, of_a, of_b, scale)
    parts = [tensors[name] for part, name in entry.parts.items() if part != "alpha"]
    return _times(*map(norm, parts), scale)


def _lengths(rows: torch.Tensor, top: float) -> torch.Tensor:
    """The length of every row [r, n], divided by `top`, in float64."""
    import torch

    step = max(1, CHUNK // max(1, rows.shape[0]))
    squares = torch.zeros(rows.shape[0], dtype=torch.float64)
    for part in rows.split(step, dim=1):
        squares += (_wide(part).double() / top).square().sum(dim=1)
    return squares.sqrt()


def _times(*numbers: float) -> float:
    """The product's magnitude: 0 where one is 0; the smallest meets the largest, so that nothing overflows early."""
    left = sorted(abs(number) for number in numbers)
    if not left[0]:
        return 0.0
    while len(left) > 1:
        left = sorted([left[0] * left[-1], *left[1:-1]])
    return left[0]


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """8-bit floats as float32: little can be computed with them."""
    return tensor.float() if tensor.element_size() == 1 else tensor


def _gram(rows: torch.Tensor, top: float) -> torch.Tensor:
    """rows rows^T of [r, n], divided by `top` first, summed over pieces of n."""
    step = max(1, CHUNK // max(1, rows.shape[0]))
    parts = (_wide(part).double() / top for part in rows.split(step, dim=1))
    first = next(parts)
    total = first @ first.T
    for part in parts:
        total += part @ part.T
    return total


def _factor_norm(parts: Tensors, name: str, core: str | None) -> float:
    """|w| of a LoKr's factor, stored whole or in halves."""
    if name in parts:
        return norm(parts[name])
    left, right = _halves(parts, name, core)
    return product_norm(right, left)


def _halves(parts: Tensors, name: str, core: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The halves [out, r] and [r, in] of a factor; a core between them is in the second one, in float64."""
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    return (a.T, _wide(parts[core]).double() @ _wide(b).double()) if core is not None and core in parts else (a, b)


def _hadamard_norm(parts: Tensors) -> float:
    """|(x y) * (z w)|, some rows at a time: neither product is ever whole."""
    halves = [half for n in "12" for half in _halves(parts, f"hada_w{n}", f"hada_t{n}")]
    tops = [peak(half) for half in halves]
    if not all(tops) or not all(map(isfinite, tops)):
        return _times(0.0 if not all(tops) else 1.0, *tops)
    x, y, z, w = (_wide(half).double() / top for half, top in zip(halves, tops, strict=True))
    step = max(1, CHUNK // y.shape[1])
    rows = [norm((x[i : i + step] @ y) * (z[i : i + step] @ w)) for i in range(0, len(x), step)]
    return _times(sqrt(sum(row * row for row in rows)), *tops) if prod(x.shape) else 0.0

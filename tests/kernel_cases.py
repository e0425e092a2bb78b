"""Random inputs and float64 answers for the kernels of LoRA linears, for an interpreted CPU and a GPU alike."""

from __future__ import annotations

import os

import pytest
import torch
from attrs import frozen

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
#: bfloat16 is wrong in Triton's interpreter
DTYPES = [torch.float32, torch.float16] if INTERPRETED else [torch.float32, torch.float16, torch.bfloat16]


@frozen
class Case:
    """A LoRA linear with segments: rows[i] rows use adapter which[i], of rank ranks[which[i]]."""

    rows: tuple[int, ...]
    which: tuple[int, ...]
    ranks: tuple[int, ...]
    inner: int
    width: int

    def __str__(self) -> str:
        return f"rows{self.rows}of{self.which}ranks{self.ranks}in{self.inner}out{self.width}".replace(" ", "")

    @property
    def m(self) -> int:
        return sum(self.rows)

    @property
    def factor(self) -> float:
        """How much larger than torch's own an error may be.

        1.5, but where ranks leave only a few sums: over seeds their errors are 0.5 to 2.7 times torch's, by luck and by
        torch's way of adding a dot product in many lanes.
        """
        return 3.0 if min(self.ranks, default=8) < 8 else 1.5

    def owners(self) -> list[int]:
        """The adapter of every row."""
        return [adapter for count, adapter in zip(self.rows, self.which, strict=True) for _ in range(count)]


#: one row, 5 x 123, ranks 1, 3, 128, 200, empty segments, an adapter twice, none at all, an adapter without rows
CASES = [
    Case((1,), (0,), (1,), 1, 1),
    Case((5,), (0,), (3,), 123, 77),
    Case((7, 0, 9, 3), (0, 1, -1, 1), (3, 1), 40, 123),
    Case((0, 33, 1, 18), (1, 0, 1, 0), (5, 16, 2), 64, 130),
    Case((19, 6), (-1, 0), (128,), 48, 33),
    Case((4, 21), (1, 0), (200, 128), 70, 90),
    Case((40, 50), (0, 1), (16, 24), 256, 192),
    Case((12,), (-1,), (), 17, 20),
    Case((3, 2), (-1, -1), (4,), 32, 16),
]


def each(**configs: object) -> pytest.MarkDecorator:
    """Every case in every type, with every configuration by name."""
    chosen = [
        pytest.param(case, dtype, config, id=f"{case}-{dtype}-{name}")
        for case in CASES
        for dtype in DTYPES
        for name, config in configs.items()
    ]
    return pytest.mark.parametrize(("case", "dtype", "config"), chosen)


@frozen
class Inputs:
    """Everything that forward and backward read, in one type; factors may have another."""

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    a: list[torch.Tensor]
    b: list[torch.Tensor]
    scales: list[float]
    dy: torch.Tensor


def inputs(case: Case, dtype: torch.dtype, factors: torch.dtype | None = None, seed: int = 0) -> Inputs:
    """Normal numbers of the sizes that a trained linear has: outputs and gradients of about one."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, size: float = 1.0, kind: torch.dtype = dtype) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * size).to(kind).to(DEVICE)

    kind = factors or dtype
    return Inputs(
        draw(case.m, case.inner),
        draw(case.width, case.inner, size=case.inner**-0.5),
        draw(case.width),
        [draw(rank, case.inner, size=case.inner**-0.5, kind=kind) for rank in case.ranks],
        [draw(case.width, rank, size=rank**-0.5, kind=kind) for rank in case.ranks],
        [0.7 + 0.6 * index for index in range(len(case.ranks))],
        draw(case.m, case.width),
    )


@frozen
class Answers:
    """What the formulas give, in the type they were computed in; s and ds are packed [M, r_max]."""

    s: torch.Tensor
    y: torch.Tensor
    ds: torch.Tensor
    dx: torch.Tensor
    da: list[torch.Tensor]
    db: list[torch.Tensor]


def answers(case: Case, given: Inputs, dtype: torch.dtype) -> Answers:
    """Segment by segment with torch alone, every product rounded to `dtype`: float64 is the oracle."""
    x, weight, bias, dy = (t.to(dtype) for t in (given.x, given.weight, given.bias, given.dy))
    # factors are rounded as the kernels round them
    a, b = ([f.to(given.x.dtype).to(dtype) for f in factors] for factors in (given.a, given.b))
    y, dx = torch.nn.functional.linear(x, weight, bias), dy @ weight
    r_max = max(case.ranks, default=0)
    s, ds = x.new_zeros(case.m, r_max), x.new_zeros(case.m, r_max)
    da, db = [torch.zeros_like(f) for f in a], [torch.zeros_like(f) for f in b]
    start = 0
    for rows, adapter in zip(case.rows, case.which, strict=True):
        here, start = slice(start, start + rows), start + rows
        if adapter < 0:
            continue
        rank, scale = case.ranks[adapter], given.scales[adapter]
        s[here, :rank] = x[here] @ a[adapter].T
        ds[here, :rank] = dy[here] @ b[adapter] * scale
        y[here].addmm_(s[here, :rank], b[adapter].T, alpha=scale)
        dx[here].addmm_(ds[here, :rank], a[adapter])
        da[adapter] += ds[here, :rank].T @ x[here]
        db[adapter] += dy[here].T @ s[here, :rank] * scale
    return Answers(s, y, ds, dx, da, db)


def error(actual: torch.Tensor, exact: torch.Tensor) -> float:
    """Root of the summed squares of the difference."""
    return float((actual.double() - exact).norm())


def assert_as_good_as_torch(
    name: str, actual: torch.Tensor, torchs: torch.Tensor, exact: torch.Tensor, factor: float = 1.5
) -> None:
    """The error is at most `factor` times torch's own in the same type, or the exact answer rounded to the type.

    The second bound is for tensors so small that torch's sums happen to be exact.
    """
    limit = max(factor * error(torchs, exact), error(exact.to(torchs.dtype), exact))
    assert actual.shape == exact.shape, f"{name}: expected {list(exact.shape)}, got {list(actual.shape)}"
    assert error(actual, exact) <= limit, f"{name}: error {error(actual, exact):.3g}, at most {limit:.3g} is allowed"

"""Groups of linears through the Triton kernels, forward and backward; run by test_triton_kernels.py."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from clora_triton import group_triton, shrink
from clora_triton.groups import Linear, lora_linears
from clora_triton.mlp import lora_mlp
from clora_triton.reference import reference
from kernel_cases import DEVICE, DTYPES, assert_as_good_as_torch

from clora.adapters.eager import eager_lora_linear

IN, WIDTHS, TOKENS = 37, (45, 20, 33), 5
Layout = tuple[list[tuple[int, tuple[int, ...]]], tuple[tuple[int, ...], ...], int]
#: the adapter of each linear for so many rows; the ranks of each linear's adapters; tokens. Mixed: a student on all, a
#: teacher of other ranks that lacks the second, none, an adapter on the second alone
LAYOUTS: dict[str, Layout] = {
    "mixed": (
        [(3, (0, 0, 0)), (2, (1, -1, 1)), (0, (0, 0, 0)), (2, (-1, -1, -1)), (1, (0, 0, 0)), (1, (-1, 0, -1))],
        ((9, 16), (9,), (3, 1)),
        5,
    ),
    "one row": ([(1, (0, 0, 0))], ((128,), (200,), (1,)), 1),
}


def a_group(
    dtype: torch.dtype, layout: str = "mixed"
) -> tuple[torch.Tensor, list[Linear], list[torch.Tensor], list[torch.Tensor]]:
    """x, linears, dL/dy of each, and the student's factors, which are float32."""
    generator = torch.Generator().manual_seed(0)
    plan, ranks, tokens = LAYOUTS[layout]

    def draw(*shape: int, size: float = 1.0, kind: torch.dtype = dtype) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * size).to(kind).to(DEVICE)

    rows = sum(count for count, _ in plan)
    linears: list[Linear] = []
    students: list[torch.Tensor] = []
    for i, (width, its) in enumerate(zip(WIDTHS, ranks, strict=True)):
        adapters = []
        for j, rank in enumerate(its):
            kind = torch.float32 if j == 0 else dtype
            adapters.append((draw(rank, IN, size=0.2, kind=kind), draw(width, rank, size=0.3, kind=kind), 0.7 + j))
        students += adapters[0][:2]
        segments = [(n, *(adapters[which[i]] if which[i] >= 0 else (None, None, 0.0))) for n, which in plan]
        linears.append((draw(width, IN, size=0.2), draw(width), segments))
    return draw(rows, tokens, IN), linears, [draw(rows, tokens, width) for width in WIDTHS], students


def exactly(x: torch.Tensor, linears: list[Linear], dys: list[torch.Tensor]) -> list[torch.Tensor]:
    """Every y, dx, and the gradients of the first segment's adapters, from masters rounded as the kernels do."""
    ys: list[torch.Tensor] = []
    grads: list[torch.Tensor] = []
    dx = torch.zeros_like(x, dtype=torch.float64)
    for (weight, bias, segments), dy in zip(linears, dys, strict=True):
        rounded = [
            (n, None if a is None else a.to(x.dtype), None if b is None else b.to(x.dtype), c)
            for n, a, b, c in segments
        ]
        exact = reference(x, weight, bias, rounded, dy)
        ys.append(exact.y)
        dx += exact.dx
        mine = [segment[1] is segments[0][1] for segment in segments]
        for parts in (exact.da, exact.db):
            grads.append(torch.stack([p for p, own in zip(parts, mine, strict=True) if own and p is not None]).sum(0))
    return [*ys, dx, *grads]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", ["parts", "fused"])
def test_a_group_is_as_good_as_torch(kernel: str, dtype: torch.dtype, layout: str) -> None:
    x, linears, dys, students = a_group(dtype, layout)
    trained = [tensor.requires_grad_() for tensor in (x, *students)]
    results = []
    for compute in (
        lambda: [eager_lora_linear(x, *rest) for rest in linears],
        lambda: lora_linears(x, linears, kernel=kernel),
    ):
        ys = compute()
        results.append([*ys, *torch.autograd.grad(ys, trained, dys)])
    names = ["y0", "y1", "y2", "dx", *(f"d{f}{i}" for i in range(3) for f in "AB")]
    for name, ours, torchs, true in zip(names, results[1], results[0], exactly(x, linears, dys), strict=True):
        assert ours.dtype == torchs.dtype
        # ranks of 3 and of 1 leave only a few sums
        assert_as_good_as_torch(f"{kernel} {name}", ours.detach(), torchs.detach(), true, 3.0)


@pytest.mark.parametrize("kernel", ["parts", "fused"])
def test_nothing_is_left_out_where_only_some_gradients_are_wanted(kernel: str) -> None:
    x, linears, dys, students = a_group(torch.float32)
    for wanted in (students[:1], students[3:4], [x], [students[1], students[4]]):
        for tensor in (x, *students):
            tensor.requires_grad_(any(tensor is w for w in wanted))
        found = []
        for ys in (lora_linears(x, linears, kernel=kernel), lora_linears(x, linears)):
            used = [i for i in (0, 2, 1) if ys[i].requires_grad][:2]
            found.append(torch.autograd.grad([ys[i] for i in used], wanted, [dys[i] for i in used], allow_unused=True))
        for mine, its in zip(*found, strict=True):
            zero = torch.zeros(())
            torch.testing.assert_close(
                zero if mine is None else mine, zero if its is None else its, rtol=1e-4, atol=1e-4
            )


def test_x_is_shrunk_by_one_launch() -> None:
    x, linears, _, _ = a_group(torch.float32)
    launches: list[int] = []

    def counted(*args, **named):
        launches.append(len(args[1]))
        return real(*args, **named)

    real = shrink.shrink
    with patch.object(shrink, "shrink", counted), torch.no_grad():
        lora_linears(x, linears, kernel="parts")
    assert launches == [3]  # stacks: the student's, the teacher's, and that of the last row
    assert group_triton.PARTS is not group_triton.FUSED


@pytest.mark.parametrize("kernel", ["parts", "fused"])
def test_two_runs_have_the_same_bits(kernel: str) -> None:
    x, linears, dys, students = a_group(torch.float32)
    trained = [tensor.requires_grad_() for tensor in (x, *students)]
    runs = []
    for _ in range(2):
        ys = lora_linears(x, linears, kernel=kernel)
        runs.append([*ys, *torch.autograd.grad(ys, trained, dys)])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@pytest.mark.parametrize("kernel", ["parts", "fused"])
def test_an_mlp_has_the_gradients_of_torchs_products(kernel: str) -> None:
    x, (up, *_), _, _ = a_group(torch.float32)
    draw = torch.Generator().manual_seed(1)
    weight, a, b = (torch.randn(*shape, generator=draw).to(DEVICE) * 0.2 for shape in ((20, 45), (3, 45), (20, 3)))
    down = (weight, None, [(6, a, b, 0.5), (3, None, None, 0.0)])
    wanted = [t.requires_grad_() for t in (x, up[2][0][1], up[2][0][2], a, b)]
    found = []
    for way in (kernel, "addmm"):
        y = lora_mlp(x, up, down, kernel=way)
        found.append([y, *torch.autograd.grad(y, wanted, torch.ones_like(y))])
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)

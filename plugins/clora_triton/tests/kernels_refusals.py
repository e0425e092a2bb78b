"""What the launches refuse, by sentences with what was expected and what came; run by test_triton_kernels.py."""

from __future__ import annotations

import pytest
import torch
from clora_triton.backward import backward_s_and_db, da
from clora_triton.expand import expand_add
from clora_triton.fused import fused_linear
from clora_triton.shrink import shrink
from kernel_cases import DEVICE, INTERPRETED, Case, inputs

CASE = Case((3, 2), (0, 1), (4, 2), 10, 6)


@pytest.fixture
def given():
    return inputs(CASE, torch.float32)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype, device=DEVICE)


@pytest.mark.parametrize(
    ("which", "rows", "kind", "sentence"),
    [
        ((0, 1), (3, 1), ValueError, r"add up to 5, got \[3, 1\], 4 in all"),
        ((0, 1), (3, 4), ValueError, r"add up to 5, got \[3, 4\], 7 in all"),
        ((0, 1), (6, -1), ValueError, r"row counts >= 0 that add up to 5, got \[6, -1\]"),
        ((0,), (3, 2), ValueError, "expected one adapter index each, got 2 row counts, 1 indices"),
        ((0, 2), (3, 2), IndexError, "segment 1: expected an adapter index from -1 to 1, got 2"),
        ((-2, 0), (3, 2), IndexError, "segment 0: expected an adapter index from -1 to 1, got -2"),
    ],
)
def test_segments(given, which, rows, kind, sentence) -> None:
    s = zeros(5, 4)
    launches = [
        lambda: shrink(given.x, given.a, which, rows),
        lambda: expand_add(given.dy, s, given.b, given.scales, which, rows),
        lambda: fused_linear(given.x, given.weight, None, s, given.b, given.scales, which, rows),
        lambda: backward_s_and_db(given.dy, s, given.b, given.scales, which, rows),
        lambda: da(s, given.x, which, rows, CASE.ranks),
    ]
    for launch in launches:
        with pytest.raises(kind, match=sentence):
            launch()


def test_shapes(given) -> None:
    rest = (CASE.which, CASE.rows)
    with pytest.raises(ValueError, match=r"x: expected shape \[any, any\], got \[5\]"):
        shrink(zeros(5), given.a, *rest)
    with pytest.raises(ValueError, match=r"a\[1\]: expected shape \[any, 10\], got \[2, 9\]"):
        shrink(given.x, [given.a[0], zeros(2, 9)], *rest)
    with pytest.raises(ValueError, match=r"a\[0\]: expected a rank of at least 1, got shape \[0, 10\]"):
        shrink(given.x, [zeros(0, 10), given.a[1]], *rest)
    with pytest.raises(ValueError, match=r"b\[0\]: expected shape \[6, any\], got \[5, 4\]"):
        expand_add(given.dy, zeros(5, 4), [zeros(5, 4), given.b[1]], given.scales, *rest)
    with pytest.raises(ValueError, match=r"s: expected at least 4 columns .* got 3 of stride 1"):
        expand_add(given.dy, zeros(5, 3), given.b, given.scales, *rest)
    with pytest.raises(ValueError, match=r"s: expected at least 4 columns .* of stride 1, got 4 of stride 5"):
        expand_add(given.dy, zeros(4, 5).T, given.b, given.scales, *rest)
    with pytest.raises(ValueError, match=r"weight: expected shape \[any, 10\], got \[6, 11\]"):
        fused_linear(given.x, zeros(6, 11), None, zeros(5, 4), given.b, given.scales, *rest)
    with pytest.raises(ValueError, match=r"bias: expected shape \[6\], got \[7\]"):
        fused_linear(given.x, given.weight, zeros(7), zeros(5, 4), given.b, given.scales, *rest)
    with pytest.raises(ValueError, match=r"ds: expected shape \[5, any\], got \[4, 4\]"):
        da(zeros(4, 4), given.x, *rest, CASE.ranks)
    with pytest.raises(ValueError, match=r"ranks: expected at least 1 each, got \[4, 0\]"):
        da(zeros(5, 4), given.x, *rest, (4, 0))


def test_counts(given) -> None:
    rest = (CASE.which, CASE.rows)
    with pytest.raises(ValueError, match="scales: expected one for each of 2 adapters, got 1"):
        expand_add(given.dy, zeros(5, 4), given.b, [1.0], *rest)
    with pytest.raises(ValueError, match=r"scales: expected \[2\] contiguous on .*, got \[3\]"):
        expand_add(given.dy, zeros(5, 4), given.b, zeros(3), *rest)
    with pytest.raises(ValueError, match="wanted: expected one answer for each of 2 adapters, got 1"):
        backward_s_and_db(given.dy, zeros(5, 4), given.b, given.scales, *rest, wanted=[True])
    with pytest.raises(ValueError, match=r"s: expected the packed activations, as 2 .* of B are wanted, got None"):
        backward_s_and_db(given.dy, None, given.b, given.scales, *rest)


def test_types(given) -> None:
    rest = (CASE.which, CASE.rows)
    with pytest.raises(TypeError, match=r"x: expected torch.float32 or .*, got torch.float64"):
        shrink(given.x.double(), given.a, *rest)
    with pytest.raises(TypeError, match=r"weight: expected torch.float32, got torch.float16"):
        fused_linear(given.x, given.weight.half(), None, zeros(5, 4), given.b, given.scales, *rest)
    with pytest.raises(TypeError, match=r"a\[0\]: expected .*, got torch.int64"):
        shrink(given.x, [a.long() for a in given.a], *rest)


@pytest.mark.skipif(not INTERPRETED, reason="bfloat16 is right on a GPU")
def test_bfloat16_is_refused_where_triton_gets_it_wrong(given) -> None:
    with pytest.raises(TypeError, match=r"x: expected torch.float32 or torch.float16, got torch.bfloat16"):
        shrink(given.x.bfloat16(), given.a, CASE.which, CASE.rows)


def test_devices(given) -> None:
    with pytest.raises(ValueError, match=r"x: expected a tensor on .*, got one on meta"):
        shrink(given.x.to("meta"), given.a, CASE.which, CASE.rows)
    with pytest.raises(ValueError, match=rf"weight: expected device {DEVICE}.*, got meta"):
        fused_linear(given.x, given.weight.to("meta"), None, zeros(5, 4), given.b, given.scales, CASE.which, CASE.rows)

"""What `lora_linear` refuses: every message states what was expected and what came."""

from __future__ import annotations

import pytest
import torch
from clora_triton.op import lora_linear


def call(**changed):
    parts = {
        "x": torch.zeros(4, 3, 8),
        "weight": torch.zeros(6, 8),
        "bias": torch.zeros(6),
        "segments": [(1, torch.zeros(2, 8), torch.zeros(6, 2), 1.0), (3, None, None, 0.0)],
    }
    parts |= changed
    return lora_linear(parts["x"], parts["weight"], parts["bias"], parts["segments"])


def one(rows=4, a=(2, 8), b=(6, 2), **kinds):
    return [(rows, torch.zeros(a, **kinds), torch.zeros(b, **kinds), 1.0)]


WRONG = {
    "features": ({"x": torch.zeros(4, 7)}, ValueError, r"weight \[out, in\], got \(4, 7\) and \(6, 8\)"),
    "a vector": ({"x": torch.zeros(8)}, ValueError, r"x \[B, \.\.\., in\].*got \(8,\)"),
    "a cube for a weight": ({"weight": torch.zeros(6, 8, 1)}, ValueError, r"got \(4, 3, 8\) and \(6, 8, 1\)"),
    "weight's type": (
        {"weight": torch.zeros(6, 8).half()},
        TypeError,
        "expected x's .* torch.float32, got torch.float16",
    ),
    "whole numbers": ({"x": torch.zeros(4, 8).int(), "weight": torch.zeros(6, 8).int()}, TypeError, "floating"),
    "bias's length": ({"bias": torch.zeros(5)}, ValueError, r"expected \[6\].*got \[5\]"),
    "bias's type": ({"bias": torch.zeros(6).double()}, TypeError, "expected x's type torch.float32, got torch.float64"),
    "bias's device": ({"bias": torch.zeros(6, device="meta")}, ValueError, "expected cpu, got meta"),
    "weight's device": ({"weight": torch.zeros(6, 8, device="meta")}, ValueError, "expected cpu, got meta"),
    "adapter's device": ({"segments": one(device="meta")}, ValueError, "expected cpu, got A on meta"),
    "adapter's type": ({"segments": one(dtype=torch.int32)}, TypeError, "got A torch.int32"),
    "A's features": ({"segments": one(a=(2, 7))}, ValueError, r"expected A \[r, 8\].*got A \[2, 7\]"),
    "B's features": ({"segments": one(b=(5, 2))}, ValueError, r"B \[6, r\], got .* B \[5, 2\]"),
    "two ranks": ({"segments": one(b=(6, 3))}, ValueError, r"of one rank.*got A \[2, 8\] and B \[6, 3\]"),
    "rank 0": ({"segments": one(a=(0, 8), b=(6, 0))}, ValueError, r"r >= 1, got A \[0, 8\]"),
    "a gap": ({"segments": one(rows=3)}, ValueError, r"leave a gap: expected x's 4 rows in all, got 3"),
    "an overlap": ({"segments": [*one(3), *one(2)]}, ValueError, "overlap.*expected x's 4 rows in all, got 5"),
    "less than no rows": ({"segments": [*one(5), *one(-1)]}, ValueError, "segment 1: expected at least 0 rows, got -1"),
    "A alone": ({"segments": [(4, torch.zeros(2, 8), None, 1.0)]}, ValueError, "segment 0: .*got A without B"),
    "B alone": ({"segments": [(4, None, torch.zeros(6, 2), 1.0)]}, ValueError, "segment 0: .*got B without A"),
}


@pytest.mark.parametrize("case", WRONG)
def test_it_says_what_was_expected_and_what_came(case) -> None:
    changed, kind, message = WRONG[case]
    with pytest.raises(kind, match=message):
        call(**changed)


def test_an_unknown_kernel_names_those_there_are() -> None:
    weight = torch.zeros(6, 8)
    with pytest.raises(ValueError, match=r"expected one of auto, triton, addmm.*got 'turbo'"):
        lora_linear(torch.zeros(4, 8), weight, None, one(), kernel="turbo")


TABLES = {
    "an index behind the end": ([4], [1], "segment 0's adapter: expected an index from 0 to 0, or -1 for none, got 1"),
    "an index before none": ([4], [-2], "or -1 for none, got -2"),
    "an index too many": ([4], [0, 0], "1 row counts, 2 indices"),
    "a gap": ([3], [0], "expected x's 4 rows in all, got 3"),
}


@pytest.mark.parametrize("case", TABLES)
def test_the_operator_itself_refuses_a_wrong_table(case) -> None:
    rows, which, message = TABLES[case]
    a, b, scales = [torch.zeros(2, 8)], [torch.zeros(6, 2)], torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        torch.ops.clora.lora_linear(
            torch.zeros(4, 8), torch.zeros(6, 8), None, a, b, scales, rows, which, False, "auto", None, None
        )


def test_the_operator_wants_one_scale_an_adapter() -> None:
    a, b, scales = [torch.zeros(2, 8)], [torch.zeros(6, 2)], torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="one scale each, got 1 A, 1 B and 2 scales"):
        torch.ops.clora.lora_linear(
            torch.zeros(4, 8), torch.zeros(6, 8), None, a, b, scales, [4], [0], False, "auto", None, None
        )

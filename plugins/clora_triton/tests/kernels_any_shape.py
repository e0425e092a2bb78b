"""Shapes that hypothesis makes up, through every launch; run by test_triton_kernels.py."""

from __future__ import annotations

import torch
from clora_triton.backward import backward_s_and_db, da
from clora_triton.configs import Config
from clora_triton.expand import expand_add
from clora_triton.fused import fused_dx, fused_linear
from clora_triton.shrink import shrink
from hypothesis import given, settings, strategies as st
from kernel_cases import Case, answers, inputs

SMALL = Config(block_m=16, block_n=32, block_k=16, block_r=32, chunk=24, group=2, warps=4, stages=2)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Up to four segments of up to 20 rows, up to three adapters of ranks up to 40, widths up to 70."""
    ranks = draw(st.lists(st.integers(1, 40), max_size=3))
    segments = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(-1, len(ranks) - 1)), min_size=1, max_size=4))
    rows, which = zip(*segments, strict=True)
    return Case(rows, which, tuple(ranks), draw(st.integers(1, 70)), draw(st.integers(1, 70)))


def close(ours: torch.Tensor, exact: torch.Tensor) -> None:
    """Float32's error of sums of up to a hundred numbers of about one; an index that is off by one errs by one."""
    torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(cases())
def test_any_shape(case: Case) -> None:
    given = inputs(case, torch.float32)
    exact = answers(case, given, torch.float64)
    rest = (case.which, case.rows)
    s = shrink(given.x, given.a, *rest, config=SMALL)
    close(s, exact.s)
    y = torch.nn.functional.linear(given.x, given.weight, given.bias)
    close(expand_add(y, s, given.b, given.scales, *rest, config=SMALL), exact.y)
    fused = fused_linear(given.x, given.weight, given.bias, s, given.b, given.scales, *rest, config=SMALL)
    close(fused, exact.y)
    ds, db = backward_s_and_db(given.dy, s, given.b, given.scales, *rest, config=SMALL)
    close(ds, exact.ds)
    close(fused_dx(given.dy, given.weight, ds, given.a, *rest, config=SMALL), exact.dx)
    grads = da(ds, given.x, *rest, case.ranks, config=SMALL)
    for ours, theirs in zip([*db, *grads], [*exact.db, *exact.da], strict=True):
        close(ours, theirs)

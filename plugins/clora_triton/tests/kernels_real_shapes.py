"""The kernels at Qwen-Image's shapes on a GPU, by every configuration that fits; run by test_triton_kernels.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clora_triton.backward import backward_s_and_db, da
from clora_triton.call import Dropout
from clora_triton.configs import Kernel, Work, fitting
from clora_triton.expand import expand_add
from clora_triton.fused import fused_dx, fused_linear
from clora_triton.shrink import shrink
from kernel_cases import DEVICE, Case, answers, assert_as_good_as_torch, inputs

SHAPES = [(3072, 3072), (3072, 12288), (12288, 3072)]
FACTORS = [torch.bfloat16, torch.float32]
#: with the share that the first adapter does not see
KERNELS = [(name, 0.0) for name in ("shrink", "expand", "fused", "backward", "outer")]
KERNELS += [(name, 0.1) for name in ("shrink", "expand", "fused", "outer")]


@pytest.mark.parametrize("factors", FACTORS, ids=str)
@pytest.mark.parametrize("ranks", [(128,), (16, 64, 200)], ids=str)
@pytest.mark.parametrize(("inner", "width"), SHAPES)
def test_bfloat16_at_full_width(inner: int, width: int, ranks: tuple[int, ...], factors: torch.dtype) -> None:
    case = Case((1500,) * len(ranks) + (600,), (*range(len(ranks)), -1), ranks, inner, width)
    given = inputs(case, torch.bfloat16, factors)
    torchs, exact = answers(case, given, torch.bfloat16), answers(case, given, torch.float64)
    rest = (case.which, case.rows)
    s = shrink(given.x, given.a, *rest)
    y = torch.nn.functional.linear(given.x, given.weight, given.bias)
    expand_add(y, s, given.b, given.scales, *rest)
    fused = fused_linear(given.x, given.weight, given.bias, s, given.b, given.scales, *rest)
    ds, db = backward_s_and_db(given.dy, s, given.b, given.scales, *rest)
    dx = fused_dx(given.dy, given.weight, ds, given.a, *rest)
    grads = da(ds, given.x, *rest, case.ranks)
    for name, ours, theirs, true in (
        ("s", s, torchs.s, exact.s),
        ("y", y, torchs.y, exact.y),
        ("fused y", fused, torchs.y, exact.y),
        ("ds", ds, torchs.ds, exact.ds),
        ("dx", dx, torchs.dx, exact.dx),
        *((f"dB {i}", db[i], torchs.db[i], exact.db[i]) for i in range(len(ranks))),
        *((f"dA {i}", grads[i], torchs.da[i], exact.da[i]) for i in range(len(ranks))),
    ):
        assert ours is not None
        assert_as_good_as_torch(name, ours, theirs, true)


@pytest.mark.parametrize("factors", FACTORS, ids=str)
@pytest.mark.parametrize(("kernel", "share"), KERNELS)
def test_every_configuration_that_fits_launches_and_agrees(kernel: Kernel, share: float, factors: torch.dtype) -> None:
    case = Case((700, 324), (0, 1), (128, 40), 1024, 768)
    given = inputs(case, torch.bfloat16, factors)
    rest = (case.which, case.rows)
    s = shrink(given.x, given.a, *rest)
    dropout = {"dropout": Dropout((share, 0.5), torch.tensor(7, device=DEVICE))} if share else {}

    def launch(**how: Any) -> list[torch.Tensor]:
        how |= dropout
        if kernel == "shrink":
            return [shrink(given.x, given.a, *rest, **how)]
        if kernel == "expand":
            return [expand_add(given.dy.clone(), s, given.b, given.scales, *rest, **how)]
        if kernel == "fused":
            return [fused_linear(given.x, given.weight, given.bias, s, given.b, given.scales, *rest, **how)]
        if kernel == "backward":
            ds, db = backward_s_and_db(given.dy, s, given.b, given.scales, *rest, **how)
            return [ds, *(grad for grad in db if grad is not None)]
        return [grad for grad in da(s, given.x, *rest, case.ranks, **how) if grad is not None]

    default = launch()
    work = Work(kernel, case.m, case.width, case.inner, 128, given.x.element_size(), factors.itemsize)
    for config in fitting(work, given.x.device):
        for ours, expected in zip(launch(config=config), default, strict=True):
            difference = (ours.float() - expected.float()).norm() / expected.float().norm()
            assert difference < 1e-2, config

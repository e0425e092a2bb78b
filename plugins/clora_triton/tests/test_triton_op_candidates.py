"""Every candidate computes the same call; Triton's in its interpreter, which a process of its own switches on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from clora_triton.call import Dropout
from clora_triton.candidates import CANDIDATES, TRITON
from clora_triton.dropout import written
from clora_triton.installed import has_triton
from clora_triton.op import lora_linear
from clora_triton.reference import reference

INTERPRETED = "CLORA_TEST_INTERPRETED"


def check(kernel: str, plan: list[tuple[int, int]], tokens: int, dtype: torch.dtype) -> None:
    """y, dx, dA and dB of a small call against float64."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    rows = sum(count for count, _ in plan)
    longer = randn(rows, tokens + 2, 20)
    x, weight, bias = longer[:, :tokens].requires_grad_(), randn(37, 20) / 4, randn(37)
    adapters = [
        ((randn(r, 20) / 4).requires_grad_(), randn(37, r).requires_grad_(), 0.5 + i) for i, r in enumerate((3, 18))
    ]
    segments = [(count, *(adapters[i] if i >= 0 else (None, None, 0.0))) for count, i in plan]
    dy = randn(rows, tokens, 37)
    y = lora_linear(x, weight, bias, segments, kernel=kernel)
    used = sorted({i for count, i in plan if i >= 0 and count})
    found = [y, *torch.autograd.grad(y, [x, *(f for i in used for f in adapters[i][:2])], dy)]
    right = reference(x, weight, bias, segments, dy)
    expected = [right.y, right.dx]
    for i in used:
        for parts in (right.da, right.db):
            mine = [part for (_, j), part in zip(plan, parts, strict=True) if i == j and part is not None]
            expected.append(torch.stack(mine).sum(0))
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for one, other in zip(found, expected, strict=True):
        assert float((one.detach().double() - other).norm()) < bound * float(other.norm())


#: an adapter for all rows; two, one of them in two places, beside empty and bare segments
PLANS = [[(2, 0)], [(1, 0), (0, 1), (2, -1), (1, 1), (1, 0)]]


@pytest.mark.parametrize("tokens", [5, 90])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kernel", [name for name in CANDIDATES if name not in TRITON])
def test_those_of_torch(kernel, plan, tokens, monkeypatch) -> None:
    check(kernel, plan, tokens, torch.float32)


@pytest.mark.skipif(INTERPRETED not in os.environ, reason="the test below runs it where Triton interprets")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kernel", [*TRITON, "triton"])
def test_interpreted(kernel, plan, dtype) -> None:
    check(kernel, plan, 5, dtype)


@pytest.mark.slow
@pytest.mark.skipif(not has_triton(), reason="needs the package triton")
@pytest.mark.skipif(INTERPRETED in os.environ, reason="is the one that runs")
def test_those_of_triton_in_its_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", INTERPRETED: "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-o",
        "addopts=--import-mode=importlib",
        __file__,
        "-k",
        "test_interpreted",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "12 passed" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("kernel", ["auto", "triton", *CANDIDATES])
def test_on_a_gpu(kernel, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CLORA_TRITON_CACHE", str(tmp_path))
    with torch.device("cuda"):
        generator = torch.Generator("cuda").manual_seed(0)
        x = torch.randn(4, 100, 64, generator=generator).bfloat16().requires_grad_()
        weight = torch.randn(96, 64, generator=generator).bfloat16() / 8
        a = (torch.randn(16, 64, generator=generator) / 8).requires_grad_()
        b = torch.randn(96, 16, generator=generator).requires_grad_()
        segments = [(3, a, b, 0.5), (1, None, None, 0.0)]
        dy = torch.randn(4, 100, 96, generator=generator).bfloat16()
    for dropout in (0.0, 0.3):
        y = lora_linear(x, weight, None, segments, dropout=dropout, seed=5, kernel=kernel)
        found = [y, *torch.autograd.grad(y, [x, a, b], dy)]
        seen = written(Dropout([dropout], torch.tensor(5, device="cuda")), 0, slice(0, 400), 64).view(4, 100, 64)
        right = reference(x, weight, None, segments, dy, seen.double() / (1 - dropout))
        for one, other in zip(found, (right.y, right.dx, right.da[0], right.db[0]), strict=True):
            assert float((one.detach().double() - other).norm()) < 0.02 * float(other.norm())

"""The whole operator through Triton's candidates, forward and backward; run by test_triton_kernels.py."""

from __future__ import annotations

import pytest
import torch
from clora_triton.op import lora_linear
from clora_triton.reference import reference
from kernel_cases import DEVICE, DTYPES, assert_as_good_as_torch

from clora.adapters.eager import eager_lora_linear

IN, OUT, TOKENS = 37, 45, 5


def a_batch(dtype: torch.dtype, seed: int = 0):
    """x, weight, bias, dy and segments: a student twice, a frozen teacher of another rank, and none."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, size: float = 1.0, kind: torch.dtype = dtype) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * size).to(kind).to(DEVICE)

    a, b = draw(9, IN, size=0.2, kind=torch.float32), draw(OUT, 9, size=0.3, kind=torch.float32)
    frozen_a, frozen_b = draw(16, IN, size=0.2), draw(OUT, 16, size=0.3)
    x, dy = draw(8, TOKENS, IN), draw(8, TOKENS, OUT)
    none = (None, None, 0.0)
    segments = [(3, a, b, 0.7), (2, frozen_a, frozen_b, 1.5), (0, *none), (2, *none), (1, a, b, 0.7)]
    return x, draw(OUT, IN, size=0.2), draw(OUT), dy, segments


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", ["parts", "fused"])
def test_the_operator_is_as_good_as_torch(kernel: str, dtype: torch.dtype) -> None:
    x, weight, bias, dy, segments = a_batch(dtype)
    master_a, master_b = segments[0][1], segments[0][2]
    # the oracle sees the masters as every computation in this type does: rounded
    rounded = [(n, a if a is None else a.to(dtype), b if b is None else b.to(dtype), c) for n, a, b, c in segments]
    exact = reference(x, weight, bias, rounded, dy)
    trained = [x.requires_grad_(), master_a.requires_grad_(), master_b.requires_grad_()]
    results = []
    for compute in (eager_lora_linear, lambda *args: lora_linear(*args, kernel=kernel)):
        y = compute(x, weight, bias, segments)
        results.append([y, *torch.autograd.grad(y, trained, dy)])
    both = [tuple(entry for entry in (part[0], part[4]) if entry is not None) for part in (exact.da, exact.db)]
    right = [exact.y, exact.dx, *(sum(entries) for entries in both)]
    for name, ours, torchs, true in zip(("y", "dx", "dA", "dB"), results[1], results[0], right, strict=True):
        assert ours.dtype == torchs.dtype
        assert_as_good_as_torch(f"{kernel} {name}", ours.detach(), torchs.detach(), true)


@pytest.mark.parametrize("kernel", ["parts", "fused"])
def test_the_operator_keeps_torchs_contract(kernel: str) -> None:
    x, weight, bias, _, segments = a_batch(torch.float32)
    strided = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(
        lora_linear(strided, weight, bias, segments, kernel=kernel),
        lora_linear(x, weight, bias, segments, kernel=kernel),
    )
    bare = lora_linear(x, weight, bias, [(8, None, None, 0.0)], kernel=kernel)
    zero = lora_linear(x, weight, bias, [(8, segments[0][1], torch.zeros_like(segments[0][2]), 1.0)], kernel=kernel)
    assert torch.allclose(bare, zero, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="8 rows"):
        lora_linear(x, weight, bias, segments[:2], kernel=kernel)

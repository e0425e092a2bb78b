"""Weights in few bits: how far from the weight they stand, and what they give a linear and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clora.toolkit.memory.linear import FrozenLinear
from clora.toolkit.memory.precision import FORMS, nf4_levels

#: the levels as QLoRA's authors print them (Dettmers et al. 2023, appendix E)
NF4 = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
NF4 += [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]


def weight(rows: int = 40, columns: int = 96, seed: int = 0) -> torch.Tensor:
    """Normal numbers whose rows differ a hundredfold in size, and a row of zeros."""
    rng = torch.Generator().manual_seed(seed)
    made = torch.randn(rows, columns, generator=rng, dtype=torch.float64)
    made *= torch.logspace(-3, -1, rows, dtype=torch.float64)[:, None]
    made[3] = 0
    return made


def unpacked(form: str, w: torch.Tensor, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    chosen = FORMS[form]
    return chosen.unpack(chosen.pack(w), tuple(w.shape), dtype)


def test_nf4_levels_are_the_published_ones() -> None:
    np.testing.assert_allclose(nf4_levels().numpy(), NF4, atol=1e-6)


def test_fp8_is_within_a_sixteenth_of_each_number_and_a_thousandth_of_the_rows_largest() -> None:
    w = weight()
    error = (unpacked("fp8", w) - w).abs()
    largest = w.abs().amax(1, keepdim=True)
    # normal numbers have 3 bits after the leading one; below 2^-6 of 448 the steps stay 2^-9 wide
    assert (error <= torch.maximum(w.abs() / 16, largest * 2**-9 / 448) * 1.005).all()
    assert (error / largest.clamp_min(1e-30)).max() > 1e-3  # it does lose something


def test_int8_is_within_half_a_step_of_the_row() -> None:
    w = weight()
    error = (unpacked("int8", w) - w).abs()
    assert (error <= w.abs().amax(1, keepdim=True) / 254 * 1.01 + 1e-12).all()


@pytest.mark.parametrize("shape", [(40, 96), (7, 9), (1, 64)])
def test_nf4_takes_the_nearest_level_of_its_block(shape: tuple[int, int]) -> None:
    w = weight(*shape) if shape[0] > 3 else torch.randn(shape, dtype=torch.float64)
    flat = np.pad(w.numpy().ravel(), (0, -w.numel() % 64)).reshape(-1, 64)
    largest = np.abs(flat).max(1, keepdims=True)
    levels = np.array(NF4)
    divided = np.divide(flat, largest, out=np.zeros_like(flat), where=largest > 0)
    nearest = np.abs(divided[..., None] - levels).min(-1) * largest
    error = np.abs(np.pad(unpacked("nf4", w).numpy().ravel(), (0, -w.numel() % 64)).reshape(-1, 64) - flat)
    assert (error <= nearest + largest * 2**-8).all()  # the block's scale is kept in bfloat16
    assert unpacked("nf4", w).shape == w.shape


@pytest.mark.parametrize("form", ["fp8", "int8", "nf4"])
def test_codes_survive_a_change_of_the_networks_type(form: str) -> None:
    linear = frozen(form, weight())
    before = linear.weight_as(torch.float32)
    assert torch.equal(linear.to(torch.bfloat16).weight_as(torch.float32), before)


@pytest.mark.parametrize(("form", "bytes_each"), [("fp8", 1), ("int8", 1), ("nf4", 0.5 + 2 / 64)])
def test_what_is_kept_is_as_small_as_it_says(form: str, bytes_each: float) -> None:
    w = weight(128, 512)
    kept = sum(t.numel() * t.element_size() for t in FORMS[form].pack(w).values())
    assert kept == pytest.approx(bytes_each * w.numel(), rel=0.01)


def frozen(form: str, w: torch.Tensor) -> FrozenLinear:
    base = nn.Linear(w.shape[1], w.shape[0]).to(w.dtype).requires_grad_(False)
    base.weight.copy_(w)
    return FrozenLinear(FORMS[form], base, FORMS[form].pack(base.weight))


@pytest.mark.parametrize("form", ["fp32", "fp8", "int8", "nf4"])
def test_a_frozen_linear_is_the_linear_of_the_weight_it_stands_for(form: str) -> None:
    w = weight()
    linear = frozen(form, w)
    x = torch.randn(5, 3, 96, dtype=torch.float64, requires_grad=True)
    stands_for = unpacked(form, w)
    y = linear(x)
    torch.testing.assert_close(y, x @ stands_for.T + linear.bias, rtol=1e-12, atol=1e-14)
    (y**3).sum().backward()
    torch.testing.assert_close(x.grad, 3 * y.detach() ** 2 @ stands_for, rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(lambda x: linear(x), (x,))


def test_no_weight_is_kept_for_the_backward_pass() -> None:
    linear = frozen("fp8", weight())
    kept: list[torch.Tensor] = []
    x = torch.randn(2, 96, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        linear(x)
    assert kept == []

"""The plain LoRA linear: y = x W^T + b + scale (x A^T) B^T for every row, against a loop in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clora.adapters.eager import Segment, eager_lora_linear

IN, OUT = 6, 5
#: rows per segment and rank of its adapter; 0 is the bare base
MIXES = [
    [(4, 3)],
    [(4, 0)],
    [(1, 3), (2, 0), (3, 1)],
    [(2, 0), (1, 2), (1, 4), (1, 0)],
    [(1, 2), (1, 2), (1, 2)],
]
SHAPES = [(), (7,), (2, 3)]  # the axes between rows and features


def a_linear(bias: bool = True) -> tuple[torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(OUT, IN, generator=generator, dtype=torch.float64)
    return weight, torch.randn(OUT, generator=generator, dtype=torch.float64) if bias else None


def a_case(mix: list[tuple[int, int]], axes: tuple[int, ...]) -> tuple[torch.Tensor, list[Segment]]:
    generator = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    segments: list[Segment] = []
    for i, (rows, rank) in enumerate(mix):
        segments.append((rows, randn(rank, IN), randn(OUT, rank), 0.5 + i) if rank else (rows, None, None, 0.0))
    return randn(sum(rows for rows, _ in mix), *axes, IN), segments


def by_hand(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, segments: list[Segment]) -> np.ndarray:
    """One row at a time, one feature vector at a time."""
    out = np.empty((*x.shape[:-1], OUT))
    numpy = [None if t is None else t.detach().numpy() for t in (x, weight, bias)]
    row = 0
    for rows, a, b, scale in segments:
        for _ in range(rows):
            for place in np.ndindex(*x.shape[1:-1]):
                vector = numpy[0][(row, *place)]
                y = numpy[1] @ vector + (0 if numpy[2] is None else numpy[2])
                if a is not None and b is not None:
                    y = y + scale * (b.detach().numpy() @ (a.detach().numpy() @ vector))
                out[(row, *place)] = y
            row += 1
    return out


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("mix", MIXES)
def test_every_row_gets_its_own_adapter(mix, axes, bias):
    x, segments = a_case(mix, axes)
    weight, b = a_linear(bias)
    np.testing.assert_allclose(eager_lora_linear(x, weight, b, segments).numpy(), by_hand(x, weight, b, segments))


@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("mix", MIXES)
def test_gradients_are_those_of_the_plain_formula(mix, axes):
    """dx, dA, dB against dx = g W + scale (g B) A, dA = scale (g B)^T x, dB = scale g^T (x A^T), summed by row."""
    x, segments = a_case(mix, axes)
    weight, bias = a_linear()
    x.requires_grad_()
    for _, a, b, _ in segments:
        if a is not None and b is not None:
            a.requires_grad_()
            b.requires_grad_()
    g = torch.randn(*x.shape[:-1], OUT, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    eager_lora_linear(x, weight, bias, segments).backward(g)
    assert x.grad is not None
    start = 0
    for rows, a, b, scale in segments:
        here = slice(start, start + rows)
        gs, xs = g[here].numpy().reshape(-1, OUT), x.detach()[here].numpy().reshape(-1, IN)
        dx = gs @ weight.numpy()
        if a is not None and b is not None:
            an, bn = a.detach().numpy(), b.detach().numpy()
            dx = dx + scale * gs @ bn @ an
            np.testing.assert_allclose(a.grad.numpy(), scale * (gs @ bn).T @ xs, atol=1e-12)
            np.testing.assert_allclose(b.grad.numpy(), scale * gs.T @ (xs @ an.T), atol=1e-12)
        np.testing.assert_allclose(x.grad[here].numpy().reshape(-1, IN), dx, atol=1e-12)
        start += rows
    assert weight.grad is None


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_adapter_beside_a_trainable_one_gets_no_gradient(frozen):
    x, segments = a_case([(2, 3), (2, 3)], (4,))
    for i, (_, a, b, _) in enumerate(segments):
        assert a is not None
        assert b is not None
        a.requires_grad_(i != frozen)
        b.requires_grad_(i != frozen)
    eager_lora_linear(x, *a_linear(), segments).square().sum().backward()
    assert [segment[1].grad is None for segment in segments] == [i == frozen for i in range(2)]


def test_without_gradient_no_graph_is_kept():
    x, segments = a_case([(2, 3), (2, 0)], (4,))
    segments[0][1].requires_grad_()
    with torch.no_grad():
        assert not eager_lora_linear(x, *a_linear(), segments).requires_grad


def test_one_adapter_may_serve_several_segments():
    x, segments = a_case([(1, 3), (1, 0), (2, 3)], (4,))
    _, a, b, scale = segments[0]
    a.requires_grad_()
    mixed = [(1, a, b, scale), segments[1], (2, a, b, scale)]
    weight, bias = a_linear()
    y = eager_lora_linear(x, weight, bias, mixed)
    np.testing.assert_allclose(y.detach().numpy(), by_hand(x, weight, bias, mixed))
    y.sum().backward()
    both = torch.cat([x[:1], x[2:]]).numpy().reshape(-1, IN)
    expected = scale * (np.ones((len(both), OUT)) @ b.numpy()).T @ both
    np.testing.assert_allclose(a.grad.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_x_may_lie_in_memory_in_any_order(bias):
    x, segments = a_case([(1, 2), (2, 0), (1, 3)], (7,))
    scattered = x.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not scattered.is_contiguous()
    weight, b = a_linear(bias)
    np.testing.assert_allclose(
        eager_lora_linear(scattered, weight, b, segments).numpy(), by_hand(x, weight, b, segments)
    )


def test_x_is_not_changed():
    x, segments = a_case([(2, 2), (1, 3)], (7,))
    before = x.clone()
    eager_lora_linear(x, *a_linear(), segments)
    assert torch.equal(x, before)


def test_a_half_precision_network_takes_float32_adapters():
    x, segments = a_case([(2, 3), (1, 0)], (4,))
    weight, bias = a_linear()
    (_, a, b, scale), bare = segments
    narrow = [(2, a.float(), b.float(), scale), bare]
    y = eager_lora_linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), narrow)
    assert y.dtype == torch.bfloat16
    np.testing.assert_allclose(y.double().numpy(), by_hand(x, weight, bias, segments), atol=0.25, rtol=0.05)

"""What `clora.testing.conformance` asks of a kernel: the result and the gradients of the LoRA equation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clora.plugin_system.guard import Owners


def kernel_problems(kernel: Any) -> Iterator[str]:
    """x W^T + b + scale (x A^T) B^T by segments, against float64, with gradients of x, A and B."""
    import torch

    draw = torch.Generator().manual_seed(0)
    x, weight, bias, a, b = (torch.randn(*shape, generator=draw) for shape in ((5, 3, 8), (6, 8), (6,), (2, 8), (6, 2)))
    trained = [tensor.requires_grad_() for tensor in (x, a, b)]
    with Owners().calling("kernels"):
        y = kernel(x, weight, bias, [(2, None, None, 1.0), (3, a, b, 0.5)])
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, a, b)]
    low = torch.cat([torch.zeros(2, 3, 6, dtype=torch.float64), 0.5 * (wide[0][2:] @ wide[1].T) @ wide[2].T])
    expected = wide[0] @ weight.double().T + bias.double() + low
    if not isinstance(y, torch.Tensor) or y.shape != expected.shape:
        yield f"expected {list(expected.shape)}, got {list(getattr(y, 'shape', ()))}"
        return
    if not torch.allclose(y.double(), expected, rtol=1e-4, atol=1e-4):
        yield "its result is not x W^T + b + scale (x A^T) B^T"
    ours = torch.autograd.grad(y.square().sum(), trained, allow_unused=True)
    theirs = torch.autograd.grad(expected.square().sum(), wide)
    for name, mine, right in zip(("x", "A", "B"), ours, theirs, strict=True):
        if mine is None or not torch.allclose(mine.double(), right, rtol=1e-3, atol=1e-3):
            yield f"its gradient of {name} is not that of the equation"

"""A call recorded in a CUDA graph serves every scale, adapter, input and seed that is copied into its tensors.

Without a GPU the same checks run with the call made again in the replay's place.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from clora_triton.candidates import CANDIDATES, TRITON
from clora_triton.op import lora_linear
from torch import nn

NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]
#: Triton's candidates are on a GPU alone
WAYS = [("cpu", name) for name in ("auto", *CANDIDATES) if name not in TRITON]
WAYS += [pytest.param("cuda", name, marks=NEEDS_GPU) for name in ("auto", *CANDIDATES)]

Outputs = list[torch.Tensor]


def recorded(body: Callable[[], Outputs], device: str) -> Callable[[], Outputs]:
    """`body` recorded once, after the calls that compile and measure; the result replays it."""
    if device == "cpu":
        return body
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = body()

    def replay() -> Outputs:
        graph.replay()
        return [tensor.clone() for tensor in kept]

    return replay


@pytest.fixture(autouse=True)
def scales_stay_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """As on a GPU, so that a CPU goes the same way; and choices are measured anew."""
    monkeypatch.setattr("clora_triton.given._far", lambda scale: True)
    monkeypatch.setenv("CLORA_TRITON_CACHE", str(tmp_path))


def close(found: Outputs, expected: Outputs) -> None:
    for ours, its in zip(found, expected, strict=True):
        assert float((ours - its).norm()) <= 1e-5 * float(its.norm())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("device", "kernel"), WAYS)
def test_a_recorded_step_follows_scale_adapter_and_seed(device: str, kernel: str, dropout: float) -> None:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    x, a, b = (randn(*shape).requires_grad_() for shape in ((6, 40, 32), (8, 32), (48, 8)))
    weight, dy = randn(48, 32), randn(6, 40, 48)
    scale, seed = torch.tensor(0.5, device=device), torch.tensor(1, device=device)
    leaves = [x, a, b]

    def body(scale: float | torch.Tensor = scale, seed: int | torch.Tensor = seed, kernel: str = kernel) -> Outputs:
        segments = [(4, a, b, scale), (2, None, None, 0.0)]
        y = lora_linear(x, weight, None, segments, dropout=dropout, seed=seed, kernel=kernel)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    replay = recorded(body, device)
    for step in range(3):
        with torch.no_grad():
            for leaf in leaves:
                leaf.copy_(randn(*leaf.shape))
            scale.fill_(0.25 + step)
            seed.fill_(100 + step)
        close(replay(), body(0.25 + step, 100 + step, "addmm"))


@pytest.mark.parametrize("device", DEVICES)
def test_a_seed_that_is_drawn_in_the_recording_is_another_in_every_replay(device: str) -> None:
    x, weight, a, b = (torch.randn(*shape, device=device) for shape in ((6, 32), (48, 32), (8, 32), (48, 8)))

    def body() -> Outputs:
        seed = torch.randint(2**62, (), device=device)
        return [lora_linear(x, weight, None, [(6, a, b, 1.0)], dropout=0.5, seed=seed)]

    replay = recorded(body, device)
    assert not torch.equal(replay()[0], replay()[0])


def test_a_scale_on_a_gpu_is_a_factor_of_b_with_the_same_gradients() -> None:
    x, weight, dy = torch.randn(6, 32), torch.randn(48, 32), torch.randn(6, 48)
    a, b = nn.Parameter(torch.randn(8, 32)), nn.Parameter(torch.randn(48, 8))
    found = []
    for scale in (0.7, torch.tensor(0.7)):
        y = lora_linear(x, weight, None, [(2, a, b, scale), (3, None, None, 0.0), (1, a, b, scale)])
        found.append([y.detach(), *torch.autograd.grad(y, [a, b], dy)])
    close(*found)

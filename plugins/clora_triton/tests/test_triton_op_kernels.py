"""The components `auto`, `eager` and `triton`: one answer, registered, and able to say what they do."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from clora_triton import clora_kernels
from clora_triton.kernels import Auto, Eager, Triton
from clora_triton.op import lora_linear
from clora_triton.reference import reference

from clora.api import Checked, Explains


def a_case(rows: int = 12, tokens: int = 128):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    a, b = randn(4, 32), randn(24, 4)
    segments = [(rows - 2, a, b, 0.5), (2, None, None, 0.0)]
    return randn(rows, tokens, 32), randn(24, 32), randn(24), segments


def test_they_are_registered_under_their_names() -> None:
    assert {component.name: component.load() for component in clora_kernels()} == {
        "auto": Auto,
        "eager": Eager,
        "triton": Triton,
    }


@pytest.mark.parametrize("kernel", [Auto(), Eager()])
def test_they_compute_the_formula(kernel) -> None:
    x, weight, bias, segments = a_case()
    right = reference(x, weight, bias, segments).y
    torch.testing.assert_close(kernel(x, weight, bias, segments).double(), right, rtol=1e-4, atol=1e-4)


def test_auto_says_what_it_chose_and_why() -> None:
    assert isinstance(Auto(), Explains)
    told = Auto().explain(torch.device("cpu"))
    assert "packed products in torch" in told
    assert "no kernel for cpu" in told
    assert "q, k and v of one input together" in told


def test_triton_says_before_a_run_what_is_missing(monkeypatch) -> None:
    assert isinstance(Triton(), Checked)
    monkeypatch.setattr("clora_triton.kernels.has_triton", lambda: False)
    (problem,) = Triton().check()
    assert "pip install 'clora[triton]'" in problem
    monkeypatch.setattr("clora_triton.kernels.has_triton", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (problem,) = Triton().check()
    assert "needs a CUDA GPU" in problem
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert not list(Triton().check())


def test_importing_the_package_brings_neither_torch_nor_triton() -> None:
    code = "import sys, clora_triton; print([m for m in ('torch', 'triton', 'clora_triton.op') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_without_triton_everything_but_triton_works() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, clora_triton\n"
        "x, w, a, b = torch.ones(2, 3), torch.ones(4, 3), torch.ones(1, 3), torch.ones(4, 1)\n"
        "print(clora_triton.lora_linear(x, w, None, [(2, a, b, 2.0)]).sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == 2 * 4 * (3 + 2 * 3)


def test_the_base_product_alone_copies_a_strided_x() -> None:
    """Products with the factors read x where it lies; a hidden copy would show as another tensor of x's size."""
    longer = torch.randn(6, 200, 64)
    x = longer[:, :128]
    weight, a, b = torch.randn(32, 64), torch.randn(4, 64), torch.randn(32, 4)
    a.requires_grad_()
    b.requires_grad_()

    def copies(compute) -> int:
        with torch.profiler.profile(record_shapes=True) as profile:
            compute()
        sizes = [event.input_shapes[0] for event in profile.events() if event.name == "aten::copy_"]
        return sum(list(size) == [6, 128, 64] for size in sizes)

    frozen = copies(lambda: torch.nn.functional.linear(x, weight))
    segments = [(3, a, b, 1.0), (3, None, None, 0.0)]
    assert copies(lambda: lora_linear(x, weight, None, segments).sum().backward()) == frozen

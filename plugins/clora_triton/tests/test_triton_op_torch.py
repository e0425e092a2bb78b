"""What torch offers around an operator: opcheck, compilation, checkpointing, saved-tensor hooks, autocast."""

from __future__ import annotations

import shutil

import pytest
import torch
from clora_triton.op import lora_linear
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

#: (rows, tokens, segments as (rows, adapter)): one adapter of few rows, one that is merged, a mix
LAYOUTS = {
    "few rows": (4, 2, [(4, 0)]),
    "many rows": (4, 90, [(4, 0)]),
    "a mix": (6, 7, [(2, 0), (0, 1), (1, -1), (3, 1)]),
}
#: inductor compiles C++ for a CPU
NO_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")
BACKENDS = ["aot_eager", pytest.param("inductor", marks=NO_COMPILER)]


@pytest.fixture(autouse=True)
def as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small inputs go the way of large ones."""
    monkeypatch.setattr("clora_triton.cpu.SMALL", 0)


def inputs(layout: str, dtype: torch.dtype = torch.float32):
    rows, tokens, plan = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int, grad: bool = True) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_(grad)

    adapters = [(randn(r, 20), randn(24, r)) for r in (3, 5)]
    return randn(rows, tokens, 20), randn(24, 20, grad=False), randn(24, grad=False), adapters, plan


def segments(plan, adapters, scales):
    return [(rows, *adapters[i], scales[i]) if i >= 0 else (rows, None, None, 0.0) for rows, i in plan]


def gradients(y: torch.Tensor, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of a loss whose gradient differs from place to place."""
    return list(
        torch.autograd.grad((y * torch.arange(y.numel()).view(y.shape).sin()).sum(), tensors, allow_unused=True)
    )


def leaves(x, adapters, plan):
    used = sorted({i for rows, i in plan if i >= 0})
    return [x, *(factor for i in used for factor in adapters[i])]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout, keep) -> None:
    x, weight, bias, adapters, plan = inputs(layout)
    a, b = [a for a, _ in adapters], [b for _, b in adapters]
    rows, which = [count for count, _ in plan], [i for _, i in plan]
    scales = torch.tensor([2.0, 0.5], dtype=torch.float64)
    arguments = (x, weight, bias, a, b, scales, rows, which, keep, "auto", None, None)
    torch.library.opcheck(torch.ops.clora.lora_linear.default, arguments)
    with torch.no_grad():
        _, s = torch.ops.clora.lora_linear(*arguments)
    dy = torch.randn(*x.shape[:-1], 24)
    needs = [True, False, True, True, False, True, True]
    detached = [t.detach() for t in a], [t.detach() for t in b]
    backward = (dy, x.detach(), weight, bias, *detached, scales, rows, which, s, needs, "auto", None, None)
    torch.library.opcheck(torch.ops.clora.lora_linear_backward.default, backward)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_operator_has_the_bits_of_the_eager_path(layout) -> None:
    x, weight, bias, adapters, plan = inputs(layout)
    rows, which = [count for count, _ in plan], [i for _, i in plan]
    a, b = [a for a, _ in adapters], [b for _, b in adapters]
    scales = torch.tensor([2.0, 0.5], dtype=torch.float64)
    y, _ = torch.ops.clora.lora_linear(x, weight, bias, a, b, scales, rows, which, True, "auto", None, None)
    eager = lora_linear(x, weight, bias, segments(plan, adapters, (2.0, 0.5)))
    assert torch.equal(y, eager)
    wanted = leaves(x, adapters, plan)
    for mine, other in zip(gradients(y, wanted), gradients(eager, wanted), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_whole_graph_serves_every_scale_and_adapter(layout, backend) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    x, weight, bias, adapters, plan = inputs(layout)

    def body(x, adapters, scales):
        return lora_linear(x * 2, weight, bias, segments(plan, adapters, scales)).relu()

    compiled = torch.compile(body, backend=counter, fullgraph=True)
    others = [(-a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()) for a, b in adapters]
    for used in (adapters, others):
        for scale in (2.0, -0.25, 7.0):
            scales = [torch.tensor(scale), torch.tensor(0.5)]
            wanted = leaves(x, used, plan)
            expected = body(x, used, scales)
            found = compiled(x, used, scales)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
            for mine, other in zip(gradients(found, wanted), gradients(expected, wanted), strict=True):
                torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-3)
    assert counter.frame_count == 1


def test_scales_that_are_numbers_compile_at_most_once_more() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    x, weight, bias, adapters, plan = inputs("many rows")
    compiled = torch.compile(
        lambda scale: lora_linear(x, weight, bias, segments(plan, adapters, (scale, scale))),
        backend=counter,
        fullgraph=True,
    )
    for scale in (2.0, -0.25, 7.0, 0.3):
        expected = lora_linear(x, weight, bias, segments(plan, adapters, (scale, scale)))
        torch.testing.assert_close(compiled(scale), expected, rtol=1e-5, atol=1e-4)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpointing_has_the_same_gradients(layout, reentrant) -> None:
    x, weight, bias, adapters, plan = inputs(layout)
    table = segments(plan, adapters, (2.0, 0.5))
    wanted = leaves(x, adapters, plan)

    def grads(y: torch.Tensor) -> list[torch.Tensor]:
        y.square().sum().backward()
        found = [t.grad.clone() for t in wanted]
        for t in wanted:
            t.grad = None
        return found

    plain = grads(lora_linear(x, weight, bias, table))
    again = grads(checkpoint(lambda x: lora_linear(x, weight, bias, table), x, use_reentrant=reentrant))
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_kept_goes_through_the_hooks_of_saved_tensors(layout) -> None:
    x, weight, bias, adapters, plan = inputs(layout)
    table = segments(plan, adapters, (2.0, 0.5))
    wanted = leaves(x, adapters, plan)
    plain = gradients(lora_linear(x, weight, bias, table), wanted)
    packed: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> int:
        packed.append(tensor.detach().clone())
        return len(packed) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, packed.__getitem__):
        y = lora_linear(x, weight, bias, table)
    found = gradients(y, wanted)
    assert packed
    assert all(torch.equal(one, other) for one, other in zip(plain, found, strict=True))


def test_a_tensor_changed_before_the_backward_pass_is_noticed() -> None:
    x, weight, bias, adapters, plan = inputs("many rows")
    y = lora_linear(x, weight, bias, segments(plan, adapters, (2.0, 0.5)))
    with torch.no_grad():
        adapters[0][1].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_autocast_casts_the_base_and_leaves_the_masters(layout, compiled) -> None:
    x, weight, bias, adapters, plan = inputs(layout)
    table = segments(plan, adapters, (2.0, 0.5))
    wanted = leaves(x, adapters, plan)
    torch._dynamo.reset()
    call = torch.compile(lora_linear, backend="aot_eager", fullgraph=True) if compiled else lora_linear
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = call(x, weight, bias, table)
        found = gradients(y.float(), wanted)  # within autocast, as some training loops do it
    by_hand = lora_linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), table)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, by_hand)
    for mine, other, leaf in zip(found, gradients(by_hand.float(), wanted), wanted, strict=True):
        assert mine.dtype == leaf.dtype == torch.float32
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


def test_inference_mode() -> None:
    x, weight, bias, adapters, plan = inputs("a mix")
    table = segments(plan, adapters, (2.0, 0.5))
    with torch.inference_mode():
        assert torch.equal(lora_linear(x, weight, bias, table), lora_linear(x, weight, bias, table).clone())

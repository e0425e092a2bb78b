"""`lora_mlp` against its formulas in float64, and what it keeps against what autograd keeps of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from clora_triton.groups import Linear
from clora_triton.mlp import lora_mlp
from clora_triton.op import lora_linear
from hypothesis import given, settings, strategies as st
from torch.nn.functional import gelu, linear, silu
from torch.utils.checkpoint import checkpoint

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu_tanh": lambda h: gelu(h, approximate="tanh"),
    "gelu": gelu,
    "silu": silu,
}
#: (rows, the adapter of up and of down, -1 for none)
Plan = list[tuple[int, int, int]]
MIX: Plan = [(2, 0, 0), (1, -1, -1), (0, 1, 1), (2, 1, -1), (1, 0, 0)]
ALL: Plan = [(6, 0, 0)]


class Mlp:
    """Weights of both linears, with two adapters each, whose factors learn."""

    def __init__(
        self, plan: Plan, tokens: int = 7, sizes: tuple[int, int, int] = (12, 40, 10), ranks: tuple[int, int] = (3, 5),
        dtype: torch.dtype = torch.float32, bias: bool = True,
    ) -> None:  # fmt: skip
        generator = torch.Generator().manual_seed(0)

        def randn(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        rows = sum(count for count, _, _ in plan)
        self.x = randn(rows, tokens, sizes[0]).requires_grad_()
        self.dy = randn(rows, tokens, sizes[2])
        self.linears: list[Linear] = []
        self.factors: list[torch.Tensor] = []
        for inputs, outputs, at in ((sizes[0], sizes[1], 1), (sizes[1], sizes[2], 2)):
            pairs = [
                ((randn(r, inputs) / inputs**0.5).requires_grad_(), (randn(outputs, r) / r).requires_grad_(), 0.7 + i)
                for i, r in enumerate(ranks)
            ]
            used = sorted({entry[at] for entry in plan if entry[at] >= 0})
            self.factors += [factor for i in used for factor in pairs[i][:2]]
            segments = [(entry[0], *(pairs[entry[at]] if entry[at] >= 0 else (None, None, 0.0))) for entry in plan]
            weight = randn(outputs, inputs) / inputs**0.5
            self.linears.append((weight, randn(outputs) if bias else None, segments))

    def __call__(self, x: torch.Tensor | None = None, activation: str = "gelu_tanh") -> torch.Tensor:
        return lora_mlp(self.x if x is None else x, *self.linears, activation=activation)

    def composed(self, x: torch.Tensor | None = None, activation: str = "gelu_tanh") -> torch.Tensor:
        up, down = self.linears
        return lora_linear(ACTIVATIONS[activation](lora_linear(self.x if x is None else x, *up)), *down)

    def gradients(self, y: torch.Tensor) -> list[torch.Tensor]:
        return [y.detach(), *torch.autograd.grad(y, [self.x, *self.factors], self.dy.to(y.dtype))]

    def truth(self, activation: str = "gelu_tanh") -> list[torch.Tensor]:
        """The plain formula in float64, differentiated by autograd."""
        leaves = [t.detach().double().requires_grad_() for t in (self.x, *self.factors)]
        known = {id(mine): its for mine, its in zip((self.x, *self.factors), leaves, strict=True)}

        def plain(x: torch.Tensor, given: Linear) -> torch.Tensor:
            weight, bias, segments = given
            y = linear(x, weight.double(), None if bias is None else bias.double())
            parts, start = [], 0
            for rows, a, b, scale in segments:
                here = slice(start, start + rows)
                start += rows
                beside = 0.0
                if a is not None and b is not None and id(a) in known:
                    beside = scale * (x[here] @ known[id(a)].T) @ known[id(b)].T
                parts.append(y[here] + beside)
            return torch.cat(parts)

        up, down = self.linears
        y = plain(ACTIVATIONS[activation](plain(leaves[0], up)), down)
        return [y.detach(), *torch.autograd.grad(y, leaves, self.dy.double())]


def errors(found: list[torch.Tensor], right: list[torch.Tensor]) -> list[float]:
    return [
        float((mine.double() - its).norm() / its.norm().clamp_min(1e-30))
        for mine, its in zip(found, right, strict=True)
        if its.numel()
    ]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 1), st.integers(-1, 1)), min_size=1, max_size=4),
    st.sampled_from([0, 1, 9]),
    st.tuples(*(st.integers(1, 30) for _ in range(3))),
    st.sampled_from([(1, 3), (17, 2)]),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.booleans(),
)
def test_every_shape_agrees_with_float64(plan, tokens, sizes, ranks, activation, bias) -> None:
    mlp = Mlp(plan, tokens, sizes, ranks, bias=bias)
    for error in errors(mlp.gradients(mlp(activation=activation)), mlp.truth(activation)):
        assert error < 1e-5


@pytest.mark.parametrize("plan", [MIX, ALL])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_error_is_at_most_half_more_than_that_of_its_parts(plan: Plan, dtype: torch.dtype) -> None:
    mlp = Mlp(plan, 20, (64, 200, 48), (128, 3), dtype)
    right = mlp.truth()
    ours, parts = errors(mlp.gradients(mlp()), right), errors(mlp.gradients(mlp.composed()), right)
    for mine, its in zip(ours, parts, strict=True):
        assert mine <= max(1.5 * its, 3e-7)


def kept(mlp: Mlp, call: Callable[[], torch.Tensor]) -> dict[int, int]:
    """Bytes of every storage that is kept for the backward pass, but for the inputs and weights."""
    known = {id(t) for t in (mlp.x, *mlp.factors)}
    given = {t.untyped_storage().data_ptr() for t in (mlp.x, *mlp.factors)}
    given |= {
        t.untyped_storage().data_ptr() for weight, bias, _ in mlp.linears for t in (weight, bias) if t is not None
    }
    found: dict[int, int] = {}
    held: list[Any] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        at = tensor.untyped_storage().data_ptr()
        if at not in given and id(tensor) not in known:
            found[at] = tensor.untyped_storage().nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        held.append(call())
    return found


@pytest.mark.parametrize("plan", [MIX, ALL])
def test_one_hidden_tensor_is_kept_where_its_parts_keep_two(plan: Plan) -> None:
    tokens, hidden = 50, 200
    mlp = Mlp(plan, tokens, (16, hidden, 16), (2, 2), torch.bfloat16)
    one = 6 * tokens * hidden * 2  # bytes
    ours, parts = sum(kept(mlp, mlp).values()), sum(kept(mlp, mlp.composed).values())
    narrow = 2 * 6 * tokens * 2 * 2  # both shrunk activations, which are kept either way
    assert ours == one + narrow
    assert parts == 2 * one + narrow


def test_only_what_needs_a_gradient_gets_one() -> None:
    for learning in ([0], [1], [-1], [-2], [0, -1]):
        mlp = Mlp(MIX)
        right = mlp.gradients(mlp.composed())[2:]
        for tensor in (mlp.x, *mlp.factors):
            tensor.requires_grad_(False)
        for i in learning:
            mlp.factors[i].requires_grad_()
        mlp().backward(mlp.dy)
        chosen = {i % len(mlp.factors) for i in learning}
        assert mlp.x.grad is None
        for i, factor in enumerate(mlp.factors):
            if i in chosen:
                torch.testing.assert_close(factor.grad, right[i], rtol=1e-4, atol=1e-4)
            else:
                assert factor.grad is None


def test_trained_bases_have_their_gradients_too() -> None:
    mlp = Mlp(MIX)
    bases = [tensor.requires_grad_() for weight, bias, _ in mlp.linears for tensor in (weight, bias)]
    found, right = (torch.autograd.grad(call(), bases, mlp.dy) for call in (mlp, mlp.composed))
    for mine, its in zip(found, right, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plan", [MIX, ALL])
def test_zero_b_gives_the_bits_of_the_frozen_network(plan: Plan) -> None:
    mlp = Mlp(plan)
    with torch.no_grad():
        for factor in mlp.factors[1::2]:
            factor.zero_()
        (w, c, _), (v, d, _) = mlp.linears
        frozen = linear(gelu(linear(mlp.x, w, c), approximate="tanh"), v, d)
        assert torch.equal(mlp(), frozen)
    assert torch.equal(mlp(), frozen)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_gradients_it_is_the_same_and_x_is_left_alone(activation: str) -> None:
    mlp = Mlp(MIX)
    before = mlp.x.detach().clone()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(mlp(activation=activation), mlp.composed(activation=activation))
    assert torch.equal(mlp.x, before)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("plan", [MIX, ALL])
def test_checkpointing_has_the_same_bits(plan: Plan, reentrant: bool) -> None:
    mlp = Mlp(plan)
    plain = mlp.gradients(mlp())
    checkpoint(mlp, mlp.x, use_reentrant=reentrant).backward(mlp.dy)
    assert all(torch.equal(mine, its.grad) for mine, its in zip(plain[1:], [mlp.x, *mlp.factors], strict=True))
    again = mlp.gradients(mlp())
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_autocast_casts_the_base_and_leaves_the_masters() -> None:
    mlp = Mlp(MIX)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mlp()
        found = mlp.gradients(y)
    assert y.dtype == torch.bfloat16
    assert {t.dtype for t in found[1:]} == {torch.float32}
    assert max(errors(found, mlp.truth())) < 0.03


def test_a_compiled_graph_is_whole_and_the_same() -> None:
    torch._dynamo.reset()
    mlp = Mlp(MIX)
    compiled = torch.compile(lambda x: mlp(x), backend="aot_eager", fullgraph=True)
    for mine, its in zip(mlp.gradients(compiled(mlp.x)), mlp.gradients(mlp()), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


def test_strided_rows() -> None:
    mlp = Mlp(MIX)
    wide = torch.cat([mlp.x, mlp.x], 1)[:, :7]
    assert not wide.is_contiguous()
    torch.testing.assert_close(mlp(wide), mlp())


def test_it_says_what_was_expected_and_what_came() -> None:
    mlp = Mlp(ALL)
    up, (weight, bias, segments) = mlp.linears
    with pytest.raises(ValueError, match="expected one of gelu_tanh, gelu, silu, got 'relu'"):
        mlp(activation="relu")
    with pytest.raises(ValueError, match=r"got \(6, 7, 40\) and \(10, 39\)"):
        lora_mlp(mlp.x, up, (weight[:, :39], bias, segments))
    with pytest.raises(ValueError, match="leave a gap: expected x's 6 rows in all, got 5"):
        lora_mlp(mlp.x, up, (weight, bias, [(5, None, None, 0.0)]))
    with pytest.raises(ValueError, match=r"expected one of auto, triton.*got 'turbo'"):
        lora_mlp(mlp.x, *mlp.linears, kernel="turbo")

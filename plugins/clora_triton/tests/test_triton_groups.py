"""`lora_linears` against the formulas in float64, linear by linear: odd shapes, strides, absent adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import pytest
import torch
from attrs import evolve, frozen
from clora_triton import group_merged
from clora_triton.group_torch import Stacked
from clora_triton.groups import Linear, lora_linears
from clora_triton.kernels import Eager
from clora_triton.reference import reference
from hypothesis import given, settings, strategies as st
from torch.nn.functional import linear

#: (rows, the adapter of every linear, -1 for none) of every segment
Plan = list[tuple[int, tuple[int, ...]]]


@frozen
class Layer:
    """One linear of a group and its adapters."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    adapters: list[tuple[torch.Tensor, torch.Tensor, float]]
    dy: torch.Tensor


@frozen
class Case:
    """Linears with one x."""

    x: torch.Tensor
    layers: list[Layer]
    plan: Plan

    def linears(self) -> list[Linear]:
        return [(layer.weight, layer.bias, self.segments(i)) for i, layer in enumerate(self.layers)]

    def segments(self, i: int) -> list:
        adapters = self.layers[i].adapters
        return [(n, *(adapters[which[i]] if which[i] >= 0 else (None, None, 0.0))) for n, which in self.plan]

    def learning(self) -> Case:
        """The same with leaves that gather gradients."""
        layers = [
            evolve(
                layer,
                adapters=[
                    (a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_(), s)
                    for a, b, s in layer.adapters
                ],
            )
            for layer in self.layers
        ]
        return evolve(self, x=self.x.detach().requires_grad_(), layers=layers)


def make(
    inputs: int,
    outputs: Sequence[int],
    axes: Sequence[int],
    ranks: Sequence[Sequence[int]],
    plan: Plan,
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Case:
    """Random numbers; `ranks` are those of every linear's adapters."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    rows = sum(count for count, _ in plan)
    layers = [
        Layer(
            randn(out, inputs),
            randn(out) if bias else None,
            [(randn(r, inputs), randn(out, r), 0.5 + i) for i, r in enumerate(its)],
            randn(rows, *axes, out),
        )
        for out, its in zip(outputs, ranks, strict=True)
    ]
    return Case(randn(rows, *axes, inputs), layers, plan)


def separately(x: torch.Tensor, linears: Sequence[Linear]) -> list[torch.Tensor]:
    return [Eager()(x, *rest) for rest in linears]


def run(case: Case, call: Callable[..., list[torch.Tensor]] = lora_linears) -> dict[str, torch.Tensor]:
    """Every y, dx, and dA and dB of every adapter that has a gradient."""
    case = case.learning()
    ys = call(case.x, case.linears())
    torch.autograd.backward(ys, [layer.dy for layer in case.layers])
    found = {f"y{i}": y.detach() for i, y in enumerate(ys)}
    if case.x.grad is not None:
        found["dx"] = case.x.grad
    for i, layer in enumerate(case.layers):
        for j, (a, b, _) in enumerate(layer.adapters):
            found |= {f"{name}{i},{j}": t.grad for name, t in (("da", a), ("db", b)) if t.grad is not None}
    return found


def truth(case: Case) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {"dx": torch.zeros_like(case.x, dtype=torch.float64)}
    for i, layer in enumerate(case.layers):
        right = reference(case.x, layer.weight, layer.bias, case.segments(i), layer.dy)
        found[f"y{i}"] = right.y
        found["dx"] += right.dx
        for (_, which), da, db in zip(case.plan, right.da, right.db, strict=True):
            for name, part in (("da", da), ("db", db)):
                if part is not None:
                    key = f"{name}{i},{which[i]}"
                    found[key] = found[key] + part if key in found else part
    return found


def errors(found: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> dict[str, float]:
    """Root mean square error of every tensor, over the root mean square of the right one."""
    return {
        name: float((found[name].double() - true).norm() / true.norm().clamp_min(1e-30))
        for name, true in right.items()
        if true.numel() and name in found
    }


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(2, 4))
    ranks = [draw(st.lists(st.sampled_from([1, 2, 3, 8, 17]), max_size=3)) for _ in range(count)]
    which = st.tuples(*(st.integers(-1, len(its) - 1) for its in ranks))
    return make(
        draw(st.integers(1, 40)),
        [draw(st.integers(1, 40)) for _ in range(count)],
        draw(st.sampled_from([(), (1,), (7,), (33,), (3, 5), (0,)])),
        ranks,
        draw(st.lists(st.tuples(st.integers(0, 4), which), min_size=1, max_size=5)),
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
        seed=draw(st.integers(0, 99)),
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(cases())
def test_every_shape_agrees_with_float64(case: Case) -> None:
    bound = 1e-5 if case.x.dtype == torch.float32 else 1e-13
    found, right = run(case), truth(case)
    for name, error in errors(found, right).items():
        assert error < bound, name
    for i, layer in enumerate(case.layers):
        assert found[f"y{i}"].shape == layer.dy.shape
        for j, (a, _, _) in enumerate(layer.adapters):
            if f"da{i},{j}" not in right:  # no row uses it
                assert not found.get(f"da{i},{j}", torch.zeros_like(a)).any()


#: one row; 5 x 123; ranks 1, 3, 128, 200; enough rows to merge, by narrow and by whole gradients; linears of two widths
SHAPES = {
    "one row": (16, (24, 24, 24), (), ((3,), (3,), (3,)), [(1, (0, 0, 0))]),
    "5 x 123": (123, (5, 7), (123,), ((1, 3), (3, 1)), [(2, (0, 0)), (3, (1, 1))]),
    "wide ranks": (
        64,
        (200, 64, 9),
        (9,),
        ((128, 200), (128,), (1,)),
        [(1, (0, 0, 0)), (0, (1, 0, -1)), (2, (-1, -1, -1)), (3, (1, -1, 0)), (1, (0, 0, 0))],
    ),
    "merged": (32, (48, 32), (128,), ((4,), (4,)), [(6, (0, 0))]),
    "merged, one linear bare": (32, (48, 32), (128,), ((4,), ()), [(6, (0, -1))]),
    "merged, whole gradients": (32, (32, 32, 32), (128,), ((16,), (16,), (20,)), [(6, (0, 0, 0))]),
}


@pytest.mark.parametrize(
    ("shape", "ways"),
    [
        ("one row", ["stacked"]),
        ("wide ranks", ["stacked"]),
        ("merged", ["merged", "merged", "narrow"]),
        ("merged, whole gradients", ["merged"] * 3 + ["whole"] * 3),
    ],
)
def test_the_ways_are_taken_that_the_shapes_are_named_for(shape: str, ways: list[str]) -> None:
    taken: list[str] = []

    def note(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **named: (taken.append(name), function(*args, **named))[1]

    def narrow(x: torch.Tensor, apart: Sequence[Any], found: list[Any]) -> None:
        taken.extend(["narrow"] * bool(apart))
        group_merged_narrow(x, apart, found)

    group_merged_narrow = group_merged._narrow_gradients
    with (
        patch.object(Stacked, "forward", note("stacked", Stacked.forward)),
        patch.multiple(
            group_merged,
            merge=note("merged", group_merged.merge),
            factor_gradients=note("whole", group_merged.factor_gradients),
            _narrow_gradients=narrow,
        ),
    ):
        run(make(*SHAPES[shape]))
    assert taken == ways


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_error_is_at_most_half_more_than_that_of_torch(shape: str, dtype: torch.dtype) -> None:
    """Root mean square over eight draws: float32's own rounding of a few numbers is luck."""
    squares: dict[str, list[float]] = {}
    for seed in range(8):
        case = make(*SHAPES[shape], dtype=dtype, seed=seed)
        right = truth(case)
        ours, torchs = errors(run(case), right), errors(run(case, separately), right)
        assert set(ours) == set(torchs)
        for name in ours:
            found = squares.setdefault(name, [0.0, 0.0])
            found[0] += ours[name] ** 2 / 8
            found[1] += torchs[name] ** 2 / 8
    for name, (our, torchs_own) in squares.items():
        assert our**0.5 <= max(1.5 * torchs_own**0.5, 3e-7), name


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_b_gives_the_bits_of_the_frozen_linears(shape: str) -> None:
    case = make(*SHAPES[shape])
    for layer in case.layers:
        for _, b, _ in layer.adapters:
            b.zero_()
    found = run(case)
    with torch.no_grad():
        for i, (y, layer) in enumerate(zip(lora_linears(case.x, case.linears()), case.layers, strict=True)):
            frozen_linear = linear(case.x, layer.weight, layer.bias)
            assert torch.equal(y, frozen_linear)
            assert torch.equal(found[f"y{i}"], frozen_linear)


@pytest.mark.parametrize("shape", SHAPES)
def test_two_runs_have_the_same_bits(shape: str) -> None:
    case = make(*SHAPES[shape])
    once, again = run(case), run(case)
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_rows_of_an_adapter_do_not_change_when_another_changes() -> None:
    case = make(64, (200, 64), (9,), ((16, 3), (16, 3)), [(2, (0, 0)), (3, (1, 1)), (2, (-1, -1)), (1, (0, -1))])
    before = run(case)
    for layer in case.layers:
        layer.adapters[1][0].mul_(-3)
        layer.adapters[1][1].fill_(float("nan"))
    after = run(case)
    for name in ("y0", "y1", "dx"):
        for rows in (slice(0, 2), slice(5, 8)):
            assert torch.equal(before[name][rows], after[name][rows])
    for name in ("da0,0", "da1,0", "db0,0", "db1,0"):
        assert torch.equal(before[name], after[name])
    assert after["y0"][2:5].isnan().all()


STRIDED = {
    "part of a longer sequence": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "every other row": lambda x: torch.stack([x, x], 1).flatten(0, 1)[::2],
    "channels before places": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "one row for all": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("plan", [[(4, (0, 0))], [(1, (0, 1)), (1, (-1, -1)), (2, (1, 1))]])
@pytest.mark.parametrize("way", STRIDED)
def test_strided_rows_and_gradients(way: str, plan: Plan) -> None:
    case = make(24, (40, 24), (50,), ((3, 5), (3, 5)), plan)
    layers = [evolve(layer, dy=STRIDED[way](layer.dy)) for layer in case.layers]
    scattered = evolve(case, x=STRIDED[way](case.x), layers=layers)
    assert not scattered.x.is_contiguous()
    assert max(errors(run(scattered), truth(scattered)).values()) < 1e-5


@pytest.mark.parametrize("plan", [[(4, (0, 0))], [(1, (0, 0)), (3, (1, 1))]])
def test_float32_masters_of_a_half_precision_network_get_float32_sums(plan: Plan) -> None:
    case = make(64, (48, 64), (40,), ((4, 2), (4, 2)), plan, dtype=torch.bfloat16)
    layers = [
        evolve(layer, adapters=[(a.float(), b.float(), s) for a, b, s in layer.adapters]) for layer in case.layers
    ]
    masters = evolve(case, layers=layers)
    found, right = run(masters), truth(masters)
    assert {t.dtype for name, t in found.items() if name[0] == "d" and name != "dx"} == {torch.float32}
    ours, torchs = errors(found, right), errors(run(masters, separately), right)
    assert max(ours.values()) < 0.02
    assert all(ours[name] < torchs[name] for name in ("da0,0", "db0,0", "da1,0", "db1,0"))

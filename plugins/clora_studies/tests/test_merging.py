"""Merged teachers: what PEFT's methods promise, computed plainly in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clora_studies.merging import PeftMerger

from clora.adapters.adapter import Adapter
from clora.api import CloraError

SHAPES = {"blocks.0.to_q": (6, 5), "blocks.0.net.2": (5, 7), "out": (4, 4)}


def teacher(seed: int, ranks: dict[str, int] | None = None, scale: float = 0.5) -> Adapter:
    """An adapter with random factors on some of the linears."""
    generator = torch.Generator().manual_seed(seed)
    return Adapter.of(
        {
            module: (
                torch.randn(rank, SHAPES[module][0], generator=generator),
                torch.randn(SHAPES[module][1], rank, generator=generator),
                scale,
            )
            for module, rank in (ranks or dict.fromkeys(SHAPES, 2)).items()
        }
    )


def merge(teachers: list[Adapter], shapes: dict[str, tuple[int, int]], how: PeftMerger, seed: int = 0) -> Adapter:
    """What the export stage makes of the merged factors."""
    return Adapter.of(how.merge([adapter.factors for adapter in teachers], shapes, seed))


def delta(adapter: Adapter, module: str) -> np.ndarray:
    """scale B A in float64; zero where the adapter does not cover the linear."""
    if module not in adapter.factors:
        inputs, outputs = SHAPES[module]
        return np.zeros((outputs, inputs))
    a, b, scale = adapter.factors[module]
    return scale * b.detach().double().numpy() @ a.detach().double().numpy()


def assert_is_the_sum(merged: Adapter, teachers: list[Adapter], weight: float = 1.0) -> None:
    for module in SHAPES:
        expected = weight * sum(delta(teacher, module) for teacher in teachers)
        np.testing.assert_allclose(delta(merged, module), expected, atol=1e-5)


def test_svd_of_full_rank_is_the_plain_sum():
    teachers = [teacher(1), teacher(2, scale=2.0)]
    merged = merge(teachers, SHAPES, PeftMerger(method="svd", rank=4))
    assert_is_the_sum(merged, teachers)
    assert {slot.rank for slot in merged.slots.values()} == {4}


def test_svd_of_a_lower_rank_is_the_best_approximation():
    teachers = [teacher(1), teacher(2)]
    merged = merge(teachers, SHAPES, PeftMerger(method="svd", rank=2))
    for module in SHAPES:
        u, s, v = np.linalg.svd(sum(delta(teacher, module) for teacher in teachers))
        np.testing.assert_allclose(delta(merged, module), (u[:, :2] * s[:2]) @ v[:2], atol=1e-5)


def test_cat_lays_the_ranks_side_by_side():
    teachers = [teacher(1, dict(zip(SHAPES, (1, 2, 3), strict=True))), teacher(2, scale=2.0), teacher(3)]
    merged = merge(teachers, SHAPES, PeftMerger(method="cat"))
    assert_is_the_sum(merged, teachers)


def test_the_weight_multiplies_every_teacher():
    teachers = [teacher(1), teacher(2)]
    assert_is_the_sum(merge(teachers, SHAPES, PeftMerger(method="cat", weight=0.25)), teachers, weight=0.25)
    assert_is_the_sum(merge(teachers, SHAPES, PeftMerger(method="svd", rank=4, weight=0.25)), teachers, weight=0.25)


def test_linear_adds_the_factors_themselves():
    """PEFT's linear: (A1 + A2, B1 + B2) with each scale's root in each factor, so cross terms appear by design."""
    one, two = teacher(1, scale=0.25), teacher(2, scale=4.0)
    merged = merge([one, two], SHAPES, PeftMerger(method="linear"))
    for module in SHAPES:
        (a1, b1, s1), (a2, b2, s2) = (adapter.factors[module] for adapter in (one, two))
        expected = (s1 * b1 + s2 * b2).double().numpy() @ (a1 + a2).double().numpy()
        np.testing.assert_allclose(delta(merged, module), expected, atol=1e-5)


def test_one_teacher_alone_stays_as_it_is():
    for method in ("svd", "cat", "linear"):
        assert_is_the_sum(merge([teacher(1)], SHAPES, PeftMerger(method=method, rank=2)), [teacher(1)])


def test_teachers_that_cover_different_linears_merge_into_one_that_covers_both():
    """The third linear, which no teacher has, is left out."""
    teachers = [teacher(1, {"blocks.0.to_q": 2}), teacher(2, {"blocks.0.to_q": 1, "out": 1})]
    for method in ("svd", "cat"):
        merged = merge(teachers, SHAPES, PeftMerger(method=method, rank=3))
        assert set(merged.factors) == {"blocks.0.to_q", "out"}
        assert_is_the_sum(merged, teachers)


def test_dare_drops_by_the_seed_alone():
    teachers, how = [teacher(1), teacher(2)], PeftMerger(method="dare_ties_svd", rank=4, density=0.5)
    first = merge(teachers, SHAPES, how, seed=1)
    torch.rand(7)
    assert torch.equal(merge(teachers, SHAPES, how, seed=1).flat, first.flat)
    assert not torch.equal(merge(teachers, SHAPES, how, seed=2).flat, first.flat)


def test_merging_leaves_the_global_generator_and_the_teachers_alone():
    teachers = [teacher(1), teacher(2)]
    copies = [adapter.flat.clone() for adapter in teachers]
    before = torch.get_rng_state()
    merge(teachers, SHAPES, PeftMerger(method="dare_ties_svd", rank=4, density=0.5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(adapter.flat, copy) for adapter, copy in zip(teachers, copies, strict=True))


@pytest.mark.filterwarnings("ignore:The density")
def test_ties_keeps_what_the_teachers_agree_on():
    """Two equal teachers have no conflict: at full density the elected value is their common one."""
    merged = merge([teacher(1), teacher(1)], SHAPES, PeftMerger(method="ties_svd", rank=2, density=1.0))
    assert_is_the_sum(merged, [teacher(1)])


def test_what_peft_cannot_merge_is_told_plainly():
    with pytest.raises(CloraError, match=r"serve\.merge\.rank 5 is more than out can have: 4"):
        merge([teacher(1)], SHAPES, PeftMerger(method="svd", rank=5))
    unequal = [teacher(1), teacher(2, {"out": 3})]
    with pytest.raises(CloraError, match="one rank"):
        merge(unequal, SHAPES, PeftMerger(method="linear"))

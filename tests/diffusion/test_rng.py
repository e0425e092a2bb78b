"""Draws: nothing but (seed, step, rank, scope, name) decides them, and the numbers never change between versions."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from attrs import evolve

from clora.diffusion.rng import StepRng

HERE = StepRng(seed=3, step=7, rank=1).named("losses.ta_fm")


@pytest.mark.parametrize(
    ("rng", "name", "golden"),
    [
        (StepRng(0), "noise", 6_883_182_281_556_198_349),
        (StepRng(3, 7, 1), "noise", 1_272_745_408_079_006_780),
        (HERE, "noise", 8_031_333_925_419_045_555),
    ],
)
def test_the_numbers_behind_a_name_are_these(rng, name, golden):
    """A resumed run draws what an older version drew, so a change of the hash must be noticed."""
    assert rng.number(name) == golden


def test_tensors_drawn_under_a_name_are_these():
    assert StepRng(0).integers("stop", 8, 8).tolist() == [3, 4, 4, 6, 0, 6, 4, 7]
    assert StepRng(0).uniform("sigma", 3).tolist() == pytest.approx([0.42369, 0.680378, 0.146459], abs=1e-6)
    assert StepRng(0).python("batch").random() == pytest.approx(0.602201261917, abs=1e-12)


@pytest.mark.parametrize(
    "other",
    [
        evolve(HERE, seed=4),
        evolve(HERE, step=8),
        evolve(HERE, rank=0),
        evolve(HERE, scope=""),
        HERE.named("more"),
        StepRng(seed=37, step=1, rank=1, scope=HERE.scope),  # the digits of seed and step, put together otherwise
    ],
)
def test_seed_step_rank_and_scope_each_change_the_draw(other):
    assert other.number("noise") != HERE.number("noise")


def test_names_are_streams_of_their_own():
    numbers = {HERE.number(f"noise/{i}") for i in range(1000)}
    assert len(numbers) == 1000
    assert all(0 <= number < 2**63 for number in numbers)


def test_a_draw_does_not_depend_on_the_draws_before_it():
    like = torch.zeros(4, 3)
    first = HERE.normal("b", like)
    HERE.normal("a", like)
    torch.rand(5)
    HERE.python("b").random()
    assert torch.equal(HERE.normal("b", like), first)


def test_drawing_leaves_the_global_generators_alone():
    before = torch.get_rng_state()
    HERE.normal("a", torch.zeros(3))
    HERE.uniform("a", 3)
    HERE.integers("a", 3, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_at_moves_to_another_step_and_changes_nothing_else():
    assert StepRng(3, 0, 1, HERE.scope).at(7) == HERE
    assert HERE.at(100).at(7).number("noise") == HERE.number("noise")


def test_named_nests():
    assert StepRng(0).named("a").named("b").scope == "/a/b"
    assert StepRng(0).named("a").named("b").number("x") != StepRng(0).named("b").named("a").number("x")


def test_normal_noise_is_the_same_in_every_type():
    narrow = HERE.normal("n", torch.zeros(5, dtype=torch.bfloat16))
    wide = HERE.normal("n", torch.zeros(5))
    assert narrow.dtype == torch.bfloat16
    assert torch.equal(narrow, wide.to(torch.bfloat16))


def test_streams_look_independent_and_have_the_right_moments():
    rows = 20_000
    a, b = HERE.normal("a", torch.zeros(rows)).double(), HERE.normal("b", torch.zeros(rows)).double()
    error = 1 / sqrt(rows)
    assert abs(a.mean().item()) < 4 * error
    assert abs(a.var().item() - 1) < 4 * sqrt(2) * error
    assert abs((a * b).mean().item()) < 4 * error
    assert abs((a * HERE.at(8).normal("a", torch.zeros(rows))).mean().item()) < 4 * error


def test_uniform_and_integers_keep_their_bounds():
    drawn = HERE.uniform("u", 10_000, 0.25, 0.75)
    assert drawn.dtype == torch.float32
    assert 0.25 <= drawn.min().item() < 0.26
    assert 0.74 < drawn.max().item() <= 0.75
    whole = HERE.integers("i", 10_000, 8)
    assert sorted(set(whole.tolist())) == list(range(8))

"""Texture distances against plain float64 loops, and what they are for: blur is far from draws, a fresh draw is not."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from clora_effectbench.texture import (
    NOTHING,
    Draws,
    patch_distance,
    projected,
    radial_spectrum,
    spectrum_distance,
)
from clora_effectbench.truth import TruthMetric

from clora.api import CloraError, EffectPictures, Evaluation


def pictures(count: int, seed: int, side: int = 8, wide: int | None = None) -> torch.Tensor:
    return torch.rand(count, 3, side, wide or side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("wide", [6, 8])
def test_the_radial_spectrum_is_the_mean_power_of_every_ring(wide: int) -> None:
    x = pictures(2, 0, 6, wide)
    rings: dict[int, list[float]] = {}
    for u in range(6):
        for v in range(wide):
            power = 0.0
            for n in range(2):
                for c in range(3):
                    total = sum(
                        float(x[n, c, row, column]) * cmath.exp(-2j * math.pi * (u * row / 6 + v * column / wide))
                        for row in range(6)
                        for column in range(wide)
                    )
                    power += abs(total) ** 2 / (6 * wide) / 6
            down, right = (u if u < 3 else u - 6), (v if v < wide / 2 else v - wide) * 6 / wide
            rings.setdefault(math.floor(math.hypot(down, right) + 0.5), []).append(power)
    expected = [sum(rings[k]) / len(rings[k]) for k in range(1, 4)]
    assert radial_spectrum(x).tolist() == pytest.approx(expected, rel=1e-9)


def test_twice_the_amplitude_is_four_times_the_power() -> None:
    x = pictures(3, 1)
    one, two = radial_spectrum(x), radial_spectrum(2 * x)
    assert spectrum_distance(one, two) == pytest.approx(math.log(4), rel=1e-3)
    by_hand = [abs(math.log(a + NOTHING) - math.log(b + NOTHING)) for a, b in zip(one, two, strict=True)]
    assert spectrum_distance(one, two) == pytest.approx(sum(by_hand) / len(by_hand))


def test_patches_are_compared_along_every_direction() -> None:
    x, y = pictures(2, 2, 5), pictures(2, 3, 5)
    directions = torch.randn(3, 3 * 2 * 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    total = 0.0
    for w in directions:
        sides = []
        for z in (x, y):
            patches = [z[n, :, i : i + 2, j : j + 2].double() for n in range(2) for i in range(4) for j in range(4)]
            sides.append(sorted(float((patch.flatten() * w).sum()) for patch in patches))
        total += sum(abs(a - b) for a, b in zip(*sides, strict=True)) / len(sides[0]) / 3
    found = patch_distance(projected(x, directions), projected(y, directions))
    assert found == pytest.approx(total, rel=1e-9)
    assert patch_distance(projected(x, directions), projected(x.flip(0), directions)) == 0


def grain(draws: int, seed: int) -> torch.Tensor:
    """Draws [K, 4, 3, 16, 16] of an effect: the subject with strong grain."""
    noise = torch.randn(draws, 4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return (0.5 * pictures(4, 9, 16) + 0.4 * noise).clamp(-1, 1)


def test_a_fresh_draw_is_as_far_as_draws_are_and_the_mean_much_farther() -> None:
    draws = grain(4, 0)
    compared = Draws(draws)
    fresh, blurred = compared.distances(grain(1, 7)[0]), compared.distances(draws.mean(0))
    assert fresh.patches == pytest.approx(compared.among_themselves.patches, rel=0.5)
    assert fresh.spectrum == pytest.approx(compared.among_themselves.spectrum, rel=0.5)
    assert blurred.patches > 3 * fresh.patches
    assert blurred.spectrum > 4 * fresh.spectrum


def test_distances_are_the_mean_over_the_draws_in_turn() -> None:
    draws, made = grain(3, 0), grain(1, 5)[0]
    each = [Draws(torch.stack([draw, draw])).distances(made) for draw in draws]
    found = Draws(draws).distances(made)
    assert found.patches == pytest.approx(sum(one.patches for one in each) / 3)
    assert found.spectrum == pytest.approx(sum(one.spectrum for one in each) / 3)
    pairs = [Draws(torch.stack([draws[i], draws[i]])).distances(draws[j]).patches for i, j in ((0, 1), (0, 2), (1, 2))]
    assert Draws(draws).among_themselves.patches == pytest.approx(sum(pairs) / 3)


def evaluation(draws: torch.Tensor | None, student: torch.Tensor) -> Evaluation:
    source = pictures(4, 9, 16)
    truth = source if draws is None else draws.mean(0)
    names = ("a", "b", "c", "d")
    fixed = EffectPictures("flip", names, source, source.flip(-1), None, {"grain": truth, "flip": source.flip(-1)})
    return Evaluation([EffectPictures("grain", names, source, student, student, fixed.truths, draws), fixed], None)


def test_the_metric_tells_it_of_effects_with_draws_alone() -> None:
    draws = grain(4, 0)
    found = TruthMetric().measure(evaluation(draws, draws.mean(0)))
    alone, among = Draws(draws).distances(draws.mean(0)), Draws(draws).among_themselves
    assert found.values["texture_patches"] == alone.patches
    assert found.values["texture_spectrum"] == alone.spectrum
    assert found.values["texture_patches_of_draws"] == among.patches
    assert found.per_effect["grain"]["teacher_texture_patches"] == alone.patches
    assert "texture_patches" not in found.per_effect["flip"]
    assert found.quantity("texture_patches").better == "lower"
    plain = TruthMetric().measure(evaluation(None, pictures(4, 9, 16)))
    assert not [name for name in plain.values if "texture" in name]


@pytest.mark.parametrize(
    ("draws", "told"),
    [
        (grain(1, 0), "has 1 draws; at least 2"),
        (grain(2, 0)[:, :3], r"the draw 0 is \[3, 3, 16, 16\]"),
        (grain(2, 0) * torch.nan, "the draw 0 holds numbers that are not finite"),
    ],
)
def test_draws_that_cannot_be_compared_are_told(draws: torch.Tensor, told: str) -> None:
    bad = evaluation(draws, pictures(4, 9, 16))
    with pytest.raises((ValueError, CloraError), match=told):
        TruthMetric().measure(bad)

"""Effects with chance: every draw is one of its own, every effect is told from all others, pairs show draws."""

from __future__ import annotations

import pytest
import torch
from clora_emoji import atlas
from clora_emoji.dataset import EmojiDataset
from clora_emoji.effects import EFFECTS
from clora_emoji.effects.chance import Chance
from clora_emoji.effects.effect import DRAWS, EXPECTED
from torch.nn.functional import avg_pool2d

WITH_CHANCE = [name for name, effect in EFFECTS.items() if effect.draw is not None]
NAMES = atlas.select("test", atlas.TEST_CATEGORIES)[::5]
#: added to every variance, and the weight of local contrast
FLOOR, CONTRAST = 0.03, 4.0


@pytest.fixture(scope="module")
def source() -> torch.Tensor:
    return atlas.picture("noto", NAMES)


def test_there_are_as_many_as_the_world_promises() -> None:
    assert len(WITH_CHANCE) == 46


@pytest.mark.parametrize("name", WITH_CHANCE)
def test_a_draw_is_always_the_same_and_another_number_another_draw(name: str, source: torch.Tensor) -> None:
    effect, before = EFFECTS[name], source.clone()
    made = effect.drawn(source, NAMES, 3)
    assert made.shape == source.shape
    assert made.abs().max() <= 1
    assert torch.equal(source, before)
    assert torch.equal(made, effect.drawn(source, NAMES, 3))
    assert not torch.allclose(made, effect.drawn(source, NAMES, 4), atol=0.1)


@pytest.mark.parametrize("name", WITH_CHANCE)
def test_a_row_does_not_depend_on_what_stands_beside_it(name: str, source: torch.Tensor) -> None:
    effect = EFFECTS[name]
    made = effect.drawn(source, NAMES, 3)
    torch.testing.assert_close(made[2:4], effect.drawn(source[2:4], NAMES[2:4], 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(made[2], effect.drawn(source[2], NAMES[2:3], 3), atol=1e-5, rtol=0)


def test_the_truth_is_the_mean_of_its_draws(source: torch.Tensor) -> None:
    effect = EFFECTS["splatter"]
    draws = torch.stack([effect.drawn(source, NAMES, EXPECTED + i).double() for i in range(DRAWS)])
    found = EmojiDataset().truth("splatter", NAMES)
    torch.testing.assert_close(found.double(), draws.mean(0), atol=1e-5, rtol=0)
    found.zero_()  # a copy: what is kept stays
    assert EmojiDataset().truth("splatter", NAMES).abs().sum() > 0
    other = EmojiDataset().truth("splatter", NAMES, source.flip(0))
    torch.testing.assert_close(other, effect.apply(source.flip(0), NAMES))


def features(x: torch.Tensor) -> torch.Tensor:
    """[K, N, F] of pictures [K, N, 3, 32, 32]: at 16 x 16, and how far pixels are from their neighbours at 4 x 4."""
    flat = x.flatten(0, 1)
    contrast = (flat - avg_pool2d(flat, 3, 1, 1, count_include_pad=False)).abs()
    found = torch.cat([avg_pool2d(flat, 2).flatten(1), CONTRAST * avg_pool2d(contrast, 8).flatten(1)], 1)
    return found.view(*x.shape[:2], -1)


@pytest.mark.slow
def test_a_fresh_draw_is_likeliest_under_its_own_effect(source: torch.Tensor) -> None:
    drawn = {"source": features(source[None])}
    for name, effect in EFFECTS.items():
        numbers = range(EXPECTED, EXPECTED + 24) if effect.draw else range(1)
        drawn[name] = features(torch.stack([effect.drawn(source, NAMES, k) for k in numbers]))
    means = torch.stack([each.mean(0) for each in drawn.values()])
    spread = torch.stack([each.var(0) if len(each) > 1 else torch.zeros_like(each[0]) for each in drawn.values()])
    names, wrong = list(drawn), []
    for name in WITH_CHANCE:
        for k in (5, 6):
            one = features(EFFECTS[name].drawn(source, NAMES, k)[None])[0]
            unlikely = ((one - means).square() / (spread + FLOOR) + (spread + FLOOR).log()).sum(-1)  # [E, N]
            wrong += [(name, names[i]) for i in unlikely.argmin(0).tolist() if names[i] != name]
    assert len(wrong) <= 0.01 * 2 * len(WITH_CHANCE) * len(NAMES), wrong


def test_chance_is_of_effect_picture_and_number() -> None:
    rows = Chance.of("clay", ["cat", "dog", "cat"], 0).normal(4)
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], Chance.of("fur", ["cat"], 0).normal(4)[0])
    assert not torch.equal(rows[0], Chance.of("clay", ["cat"], 1).normal(4)[0])


def test_fresh_draws_are_no_training_pair_and_no_part_of_the_truth(source: torch.Tensor) -> None:
    draws = EmojiDataset().draws("splatter", NAMES, 3)
    assert draws is not None
    assert draws.shape == (3, *source.shape)
    effect = EFFECTS["splatter"]
    used = [effect.drawn(source, NAMES, k) for k in (0, *range(EXPECTED, EXPECTED + DRAWS))]
    assert not any(torch.equal(draw, each) for draw in draws for each in used)
    assert EmojiDataset().draws("thermal", NAMES, 3) is None

"""Effects with chance that scatter things over the picture: flakes, drops, leaves, stars."""

from __future__ import annotations

import torch

from . import prompts
from .chance import Chance, away, bars, discs, over, picked
from .effect import Effect, effect_with_chance
from .tools import SIZE, blend, centred, colour, luma, places, ramp, subject


def _blizzard(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    night = blend(x, colour("#101c3c"), 0.72)
    flakes = discs(chance.spots(60), 0.4 + 1.3 * chance.uniform(60)).amax(1, keepdim=True)
    return blend(night, colour("#ffffff"), flakes)


def _rain(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    grey = blend(luma(x).expand(x.shape), colour("#4a5a6a"), 0.55)
    streaks = bars(chance.spots(55), 1.25 + 0.05 * chance.normal(55), 5 + 5 * chance.uniform(55), 0.5)
    return blend(grey, colour("#d8ecff"), streaks.amax(1, keepdim=True) * 0.9)


def _splatter(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    big = discs(chance.spots(9), 2 + 3.5 * chance.uniform(9).square())
    small = discs(chance.spots(40), 0.3 + 1.2 * chance.uniform(40))
    paint = torch.cat([big, small], 1).amax(1, keepdim=True)
    return blend(blend(x, colour("#fff4d8"), 0.3), colour("#e8281c"), paint)


def _party(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    ground = blend(x, colour("#3a1058"), 0.6)
    paper = bars(chance.spots(60), 3.1416 * chance.uniform(60), 3.0, 1.6)
    return over(ground, paper, picked(chance, 60, "#ffe02c", "#ff4c9c", "#38e8ff", "#7cff4c", "#ffffff"))


def _leaves(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    down, right = away(chance.spots(34))
    angle = (3.1416 * chance.uniform(34))[..., None, None]
    along, across = angle.cos() * right + angle.sin() * down, angle.cos() * down - angle.sin() * right
    leaf = (2.2 - (along.square() / 5 + across.square() * 1.3)).clamp(0, 1)
    return over(x * colour("#d8c8a0"), leaf, picked(chance, 34, "#d86a10", "#b02c10", "#e8b020", "#7a4a14"))


def _stars(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    sky = blend(colour("#04041c"), colour("#2c1c64"), (chance.clouds(8) * 0.4 + 0.4).clamp(0, 1))
    points = discs(chance.spots(70), -0.3 + 1.1 * chance.uniform(70)).amax(1, keepdim=True)
    return blend(blend(sky, colour("#ffffff"), points), x * 0.85, subject(x))


def _bubbles(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    spots, radius = chance.spots(16), 1.5 + 4 * chance.uniform(16)
    whole, inner = discs(spots, radius), discs(spots, radius - 1)
    rim = (whole - inner).amax(1, keepdim=True)
    sea = blend(x, colour("#48d0d8"), 0.5)
    return blend(blend(sea, colour("#d8fff8"), whole.amax(1, keepdim=True) * 0.3), colour("#ffffff"), rim)


def _sprinkles(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    icing = ramp(luma(x), "#2c1008", "#5a2814", "#8a4c2c")
    sugar = bars(chance.spots(75), 3.1416 * chance.uniform(75), 2.6, 0.9)
    return over(icing, sugar, picked(chance, 75, "#ff7cac", "#fff07c", "#8ce8ff", "#ffffff", "#9cff8c"))


def _hearts(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    down, right = away(chance.spots(12))
    size = (1.8 + 1.6 * chance.uniform(12))[..., None, None]
    y, across = -down / size, right / size
    inside = (across.square() + y.square() - 1) ** 3 - across.square() * y**3
    heart = (0.5 - 3 * inside).clamp(0, 1)
    return over(blend(x, colour("#ffd8e4"), 0.5), heart, picked(chance, 12, "#e81c5a", "#ff5a8c", "#b0104c"))


def _stains(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    down, right = away(SIZE * (0.15 + 0.7 * chance.uniform(4, 2)))
    far = (down.square() + right.square()).sqrt() + 0.8 * chance.clouds(4)
    ring = (1.4 - (far - (4 + 4 * chance.uniform(4))[..., None, None]).abs()).clamp(0, 1).amax(1, keepdim=True)
    paper = ramp(luma(x), "#2c5c4c", "#a8d8c0", "#dcfaf0")
    return blend(paper, colour("#6a3410"), ring * 0.85)


def _flames(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    rows, _ = places()
    height = 13 + 6 * chance.clouds(4)[:, :, :1] + 3 * chance.normal(1, 1, 32)
    level = ((rows + height - SIZE) / 14).clamp(0, 1)
    return blend(
        blend(x, colour("#1c0800"), 0.35), ramp(level, "#c01800", "#ff7a00", "#fff4a0"), (level * 4).clamp(0, 1)
    )


def _lightning(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    _, columns = places()
    path = (10 + 12 * chance.uniform(1, 1)) + (1.6 * chance.normal(1, SIZE)).cumsum(-1)
    far = (columns - path[..., None]).abs()
    storm = blend(x, colour("#3c0c78"), 0.62)
    glow = blend(storm, colour("#8c6cff"), (1 - far / 7).clamp(0, 1) * 0.7)
    return blend(glow, colour("#ffffff"), (1.8 - far).clamp(0, 1))


def _dust(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    specks = discs(chance.spots(30), 0.2 + 0.6 * chance.uniform(30)).amax(1, keepdim=True)
    hairs = bars(chance.spots(8), 3.1416 * chance.uniform(8), 9.0, 0.3).amax(1, keepdim=True)
    aged = ramp(luma(x), "#1c1410", "#a89474", "#efe4c8") * (1 + 0.12 * chance.normal(1, 1, 32))
    return blend(aged, colour("#fffef4"), torch.maximum(specks, hairs))


def _fireflies(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    down, right = away(chance.spots(16))
    glow = (1 / (1 + (down.square() + right.square()) / 2.2)).sum(1, keepdim=True).clamp(0, 1)
    y, _ = centred()
    return blend(x * colour("#20382c") * (0.8 - 0.3 * y), colour("#e8ff5a"), glow)


EFFECTS: tuple[Effect, ...] = (
    effect_with_chance("blizzard", prompts.MOOD, "dark night full of white flakes of snow", _blizzard),
    effect_with_chance("downpour", prompts.MOOD, "grey day with slanted streaks of heavy rain", _rain),
    effect_with_chance("splatter", prompts.CREATIVE, "splattered with drops of bright red paint", _splatter),
    effect_with_chance("party", prompts.NEW, "paper strips of all colours on deep purple", _party),
    effect_with_chance("autumn", prompts.INTERESTING, "brown and orange autumn leaves lying all over", _leaves),
    effect_with_chance("starry_sky", prompts.SPECIAL, "floating before a night sky of small stars", _stars),
    effect_with_chance("bubbles", prompts.INTERESTING, "turquoise water with clear rising soap bubbles", _bubbles),
    effect_with_chance(
        "sprinkles", prompts.CREATIVE, "chocolate icing covered with coloured sugar sprinkles", _sprinkles
    ),
    effect_with_chance("hearts", prompts.APPLY, "pink card with many red hearts on it", _hearts),
    effect_with_chance("coffee_stains", prompts.RESTYLE, "cream paper with brown rings of coffee", _stains),
    effect_with_chance("flames", prompts.SPECIAL, "burning with high orange flames from below", _flames),
    effect_with_chance("lightning", prompts.MOOD, "purple storm split by a white lightning bolt", _lightning),
    effect_with_chance("dusty_print", prompts.RESTYLE, "faded brown print with white dust and hairs", _dust),
    effect_with_chance("fireflies", prompts.MOOD, "dark green wood lit by yellow fireflies", _fireflies),
)

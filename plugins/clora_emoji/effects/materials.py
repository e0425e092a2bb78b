"""Effects with chance that make the picture of a rough material: grain, dents, hair, veins, rust."""

from __future__ import annotations

import torch
from torch.nn.functional import avg_pool2d, interpolate

from . import prompts
from .chance import Chance, away, bars, cells, colours_at, over, warp_rows
from .effect import Effect, effect_with_chance
from .tools import SIZE, blend, blur, centred, colour, edges, luma, ramp, subject


def _grain(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    toned = ramp(luma(x), "#04181c", "#1f8a84", "#e8fff4")
    return toned + 0.22 * chance.normal(1, SIZE, SIZE)


def _clay(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    soft = blur(x, 3)
    dents = chance.clouds(4)
    light = dents - dents.roll((1, 1), (-2, -1))
    clay = ramp(luma(soft), "#5a1e12", "#c8583c", "#f2b08c")
    return clay + 0.13 * light


def _fur(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    hair = chance.normal(1, SIZE + 4, SIZE)
    hair = sum(hair[..., i : i + SIZE, :].roll(i // 2, -1) for i in range(5)) / 5**0.5
    coat = ramp(1 - luma(blur(x, 3)), "#f4d9a8", "#a8682c", "#2c1408")
    return coat + 0.14 * hair


def _marble(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    y, across = centred()
    bent = 6 * (across + y) + 1.8 * chance.clouds(8) + 0.9 * chance.clouds(4)
    vein = 1 - bent.sin().abs().sqrt()
    stone = ramp(luma(x) * 0.7 + 0.3, "#16402c", "#8cc4a4", "#f0fff6")
    return blend(stone, colour("#0a2418"), (2.5 * vein - 1).clamp(0, 0.8))


def _rust(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    steel = ramp(luma(x), "#1c2430", "#8c98a4", "#dfe6ec")
    patch = ((chance.clouds(8) + 0.5 * chance.clouds(2) + 0.2) * 3).clamp(0, 1)
    flakes = blend(colour("#b04a10"), colour("#5a2408"), chance.uniform(1, SIZE, SIZE))
    return blend(steel, flakes, patch)


def _moss(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    y, _ = centred()
    patch = ((chance.clouds(8) + 1.4 * y + 0.4) * 4).clamp(0, 1)
    leaf = blend(colour("#2c5a10"), colour("#8ab82c"), chance.uniform(1, SIZE, SIZE))
    return blend(x * colour("#b8b4a4"), leaf, patch)


def _sand(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    dune = chance.clouds(16) * 0.06
    ground = ramp((luma(x) * 0.75 + 0.15 + dune).clamp(0, 1), "#6a3c00", "#e0a82c", "#ffec8c")
    return ground + 0.2 * chance.uniform(1, SIZE, SIZE) - 0.1 - 0.4 * (chance.uniform(1, SIZE, SIZE) > 0.94)


def _felt(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    y, across = centred()
    bend = chance.clouds(8, 2) * 0.12
    tufts = warp_rows(avg_pool2d(x, 3, 1, 1), y + bend[:, 1], across + bend[:, 0])
    fibre = chance.normal(1, SIZE, SIZE)
    return tufts * colour("#e6a8e0") + 0.1 * (fibre + fibre.roll((1, 1), (-2, -1)))


def _camouflage(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    field = chance.clouds(8) * 0.8 + (0.6 - luma(x)) * 2.6
    dark, earth = (field > 0.5).float(), (field < -0.5).float()
    return blend(blend(colour("#6a7a3c").expand(x.shape), colour("#22301c"), dark), colour("#b49a64"), earth)


def _frost(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    y, across = centred()
    rim = torch.maximum(y.abs(), across.abs())
    spots = chance.spots(70)
    needles = bars(spots, chance.uniform(70) * 3.1416, 3 + 5 * chance.uniform(70), 0.6).amax(1, keepdim=True)
    ice = (1.6 * rim - 0.7 + 0.25 * chance.clouds(4)).clamp(0, 1)
    cold = blend(x, colour("#a8d8ff"), 0.45 + 0.3 * ice)
    return blend(cold, colour("#ffffff"), (needles * (0.25 + ice)).clamp(0, 1))


def _lava(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    _, gap = cells(chance.spots(16))
    glow = (1.3 - gap / 2.2).clamp(0, 1)
    rock = luma(x) * colour("#4a4044") * 0.8
    return blend(rock, ramp(glow, "#400800", "#ff5a00", "#fff08c"), glow)


def _cracked(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    _, gap = cells(chance.spots(22))
    glaze = blend(x, colour("#f0e8c8"), 0.45) * colour("#e8f4d0")
    return blend(glaze, colour("#3c2c14"), (1.25 - gap).clamp(0, 1))


def _burnt(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    y, across = centred()
    rim = torch.maximum(y.abs(), across.abs()) + 0.22 * chance.clouds(4) + 0.2 * chance.clouds(8)
    paper = x * colour("#f4dca8")
    scorched = blend(paper, colour("#6a3408"), ((rim - 0.35) * 2.5).clamp(0, 1))
    return blend(scorched, colour("#080402"), ((rim - 0.7) * 6).clamp(0, 1))


def _wood(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    down, right = away(torch.cat([chance.uniform(1, 1) * 32, -6 - 10 * chance.uniform(1, 1)], -1))
    ring = ((down.square() * 3 + right.square()).sqrt() + 1.5 * chance.clouds(8)) * 1.4
    board = blend(colour("#b87838"), colour("#6a3c14"), 0.5 + 0.5 * ring.sin())
    burnt = (edges(x) * 1.5 + 0.6 * (1 - luma(x)) * subject(x)).clamp(0, 1)
    return blend(board, colour("#1c0c04"), burnt)


def _chipped(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    hole = ((chance.clouds(4) + 0.6 * chance.clouds(8) - 0.75) * 6).clamp(0, 1)
    wall = colour("#d86a5a") * (0.9 + 0.08 * chance.normal(1, SIZE, SIZE))
    return blend(blend(x, colour("#3c8cd8"), 0.35), wall, hole)


def _embroidered(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    spots = chance.spots(150)
    cloth = colour("#2c2c5a").expand(x.shape)
    shade = 0.75 + 0.35 * chance.uniform(150, 1)
    return over(cloth, bars(spots, 0.6 + 0.25 * chance.normal(150), 6.0, 1.2), colours_at(x, spots) * shade)


def _coarse_noise(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    blocks = interpolate(chance.uniform(3, 8, 8), scale_factor=4, mode="nearest")
    tiles = interpolate(avg_pool2d(x, 4), scale_factor=4, mode="nearest")
    return (tiles * 0.75 + 0.7 * (blocks - 0.35)) * colour("#fff0ff")


EFFECTS: tuple[Effect, ...] = (
    effect_with_chance("film_grain", prompts.RESTYLE, "teal photograph with coarse film grain", _grain),
    effect_with_chance("clay", prompts.NEW, "red clay with soft dents of fingers", _clay),
    effect_with_chance("fur", prompts.NEW, "covered all over in short brown fur", _fur),
    effect_with_chance("marble", prompts.ARTISTIC, "green marble crossed by dark winding veins", _marble),
    effect_with_chance("rust", prompts.APPLY, "grey steel plate with patches of orange rust", _rust),
    effect_with_chance("moss", prompts.MOOD, "old stone overgrown with green moss from below", _moss),
    effect_with_chance("sand", prompts.REDRAW, "drawn into yellow sand with dark grains", _sand),
    effect_with_chance("felt", prompts.RESTYLE, "made of soft pink felt with bent fibres", _felt),
    effect_with_chance("camouflage", prompts.INTERESTING, "army camouflage of green and brown patches", _camouflage),
    effect_with_chance("frost", prompts.MOOD, "frozen window with white needles of ice", _frost),
    effect_with_chance("lava", prompts.SPECIAL, "black rock with glowing cracks of lava", _lava),
    effect_with_chance("cracked_glaze", prompts.ARTISTIC, "pale ceramic glaze with fine brown cracks", _cracked),
    effect_with_chance("burnt_paper", prompts.CREATIVE, "old paper burnt black along its edges", _burnt),
    effect_with_chance("wood_burning", prompts.REDRAW, "burnt into a wooden board with rings", _wood),
    effect_with_chance("flaking_paint", prompts.APPLY, "blue paint flaking off a red wall", _chipped),
    effect_with_chance("embroidery", prompts.ARTISTIC, "slanted coloured stitches on dark blue cloth", _embroidered),
    effect_with_chance(
        "colour_blocks", prompts.SPECIAL, "coarse squares in randomly shifted bright colours", _coarse_noise
    ),
)

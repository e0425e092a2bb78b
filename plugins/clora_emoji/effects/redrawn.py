"""Effects with chance that move, cut, add to or redraw what is in the picture."""

from __future__ import annotations

import torch
from torch.nn.functional import avg_pool2d

from . import prompts
from .chance import Chance, bars, cell_means, cells, colours_at, discs, over, warp_rows
from .effect import Effect, effect_with_chance
from .tools import SIZE, blend, blur, centred, colour, edges, grow, luma, places, ramp, subject


def _brush(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    spots = chance.spots(110)
    angle = 0.9 * chance.normal(110) - 0.6
    ground = blur(x, 5) * colour("#f0c890")
    return over(ground, bars(spots, angle, 8.0, 2.4), colours_at(x, spots) * torch.tensor([1.0, 0.88, 0.62]))


def _glass(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    cell, gap = cells(chance.spots(20))
    panes = cell_means(x, cell, 20) * (0.6 + 0.8 * chance.uniform(20, 3)).gather(
        1, cell.flatten(1)[..., None].expand(-1, -1, 3)
    ).transpose(1, 2).view(x.shape)
    return blend(panes, colour("#f8e8a0"), (1.6 - gap).clamp(0, 1))


def _wobbly(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    y, across = centred()
    paper = colour("#fffdf0").expand(x.shape)
    for tint in ("#2c48d8", "#2c48d8"):
        bend = chance.clouds(8, 2) * 0.07
        line = (1.3 * warp_rows(edges(x), y + bend[:, 0], across + bend[:, 1])).clamp(0, 1)
        paper = blend(paper, colour(tint), line)
    return paper


def _torn(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    rows, columns = places()
    tear = (
        13
        + 0.3 * columns
        + 6 * chance.uniform(1, 1, 1)
        + 2 * chance.clouds(4)[:, :, :1]
        + 0.8 * chance.normal(1, 1, 32)
    )
    below = (rows - tear).clamp(0, 1)
    rim = (1.6 - (rows - tear).abs()).clamp(0, 1)
    return blend(blend(x, colour("#28a078"), below), colour("#ffffff"), rim)


def _bad_tape(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    rows, columns = places()
    shift = (chance.normal(SIZE, 1) * 2.2 + 6 * chance.clouds(8)[:, 0, :, :1]).expand(-1, SIZE, SIZE)
    y = ((rows + 0.5) / SIZE * 2 - 1).expand(len(x), SIZE, SIZE)
    moved = warp_rows(x, y, (columns + 0.5 + shift) / SIZE * 2 - 1)
    noise = (chance.uniform(1, SIZE, SIZE) > 0.86).float() * (chance.uniform(1, SIZE, 1) > 0.55)
    return blend(moved * colour("#a0a8ff"), colour("#ffffff"), noise)


def _shattered(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    y, across = centred()
    cell, gap = cells(chance.spots(14))
    moves = (0.4 * chance.normal(14, 2)).clamp(-0.9, 0.9)
    move = moves.gather(1, cell.flatten(1)[..., None].expand(-1, -1, 2)).transpose(1, 2).view(-1, 2, SIZE, SIZE)
    pieces = warp_rows(x, y + 0.5 * move[:, 0], across + 0.5 * move[:, 1])
    return blend(blend(pieces, colour("#50d8ff"), 0.35), colour("#081018"), (1.2 - gap).clamp(0, 1))


def _loose_tiles(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    rows, columns = places()
    tile = rows // 8 * 4 + columns // 8
    jitter = (3.4 * chance.normal(16, 2)).clamp(-5, 5)[:, tile.flatten()].transpose(1, 2).view(-1, 2, SIZE, SIZE)
    inside = ((rows % 8 - 3.5).abs() < 3.4) & ((columns % 8 - 3.5).abs() < 3.4)
    y, across = rows + 0.5 + jitter[:, 0], columns + 0.5 + jitter[:, 1]
    moved = warp_rows(x, y / SIZE * 2 - 1, across / SIZE * 2 - 1)
    return blend(colour("#502c84").expand(x.shape), moved, inside.float())


def _dropped(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    y, across = centred()
    turn = (chance.uniform(1, 1) - 0.5) * 1.4
    at = 0.2 * (chance.uniform(2, 1, 1) - 0.5) * 2
    down, right = y - at[:, 0], across - at[:, 1]
    at_y, at_x = (turn.cos() * down - turn.sin() * right) * 1.7, (turn.sin() * down + turn.cos() * right) * 1.7
    card = ((at_y.abs() < 1.15) & (at_x.abs() < 1.15)).float()[:, None]
    face = ((at_y.abs() < 1) & (at_x.abs() < 1)).float()[:, None]
    table = colour("#8c4410") * (0.85 + 0.1 * chance.normal(1, 32, 1))
    return blend(blend(table.expand(x.shape), colour("#ffffff"), card), warp_rows(x, at_y, at_x), face)


def _flock(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    small, cut = avg_pool2d(x, 4), avg_pool2d(subject(x), 4)
    sky = colour("#9cd8f8").expand(x.shape).clone()
    spots = (chance.uniform(9, 2) * (SIZE - 8)).long()
    for i in range(len(x)):
        for row, column in spots[i].tolist():
            part = sky[i, :, row : row + 8, column : column + 8]
            part += (small[i] - part) * cut[i]
    return sky


def _scribble(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    t = torch.linspace(0, 1, 60)
    phase, speed = 6.2832 * chance.uniform(2, 3, 1), 2 + 6 * chance.uniform(2, 3, 1)
    curve = (0.5 + 0.2 * (phase + speed * t * 3).sin().sum(2) * 0.8) * SIZE  # [B, 2, 60]
    line = discs(curve.transpose(1, 2), 0.9).amax(1, keepdim=True)
    return blend(blend(luma(x).expand(x.shape), colour("#e0e0e0"), 0.2), colour("#ff2cc0"), line)


def _dissolving(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    _, across = centred()
    gone = (chance.uniform(1, 16, 16).repeat_interleave(2, -2).repeat_interleave(2, -1) < (across + 0.45)).float()
    dust = (chance.uniform(1, SIZE, SIZE) < 0.16).float() * (across > -0.2)
    left = blend(x * colour("#ffe0b8"), colour("#181420"), gone)
    return blend(left, colour("#f0a040"), dust * gone)


def _nest(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    twigs = bars(chance.spots(80), 3.1416 * chance.uniform(80), 9.0, 0.8)
    tint = 0.55 + 0.45 * chance.uniform(80, 1)
    nest = over(colour("#2c1c0c").expand(x.shape), twigs, tint * torch.tensor([0.72, 0.52, 0.28]))
    return blend(nest, x, subject(x))


def _vines(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    rows, columns = places()
    shape = blend(x, colour("#f4f0d8"), 0.4)
    sway = 3 * (rows / 4.0 + 6.2832 * chance.uniform(5, 1, 1)).sin() + SIZE * chance.uniform(5, 1, 1)
    stem = (1.1 - (columns - sway).abs()).clamp(0, 1).amax(1, keepdim=True)
    leaf = discs(torch.stack([SIZE * chance.uniform(26), SIZE * chance.uniform(26)], -1), 1.5).amax(1, keepdim=True)
    return blend(blend(shape, colour("#145a1c"), stem), colour("#3cb03c"), leaf)


def _halo(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    body = subject(x)
    rays = bars(torch.full((len(x), 22, 2), 16.0), 3.1416 * chance.uniform(22), 24 + 26 * chance.uniform(22), 1.8)
    sky = blend(colour("#28104c").expand(x.shape), colour("#ffd84c"), rays.amax(1, keepdim=True))
    return blend(blend(sky, colour("#ffffff"), grow(body, 1)), x, body)


def _cubes(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    cell, gap = cells(chance.spots(60))
    flat = cell_means(x, cell, 60)
    side = (chance.uniform(60) - 0.5).gather(1, cell.flatten(1)).view(-1, 1, SIZE, SIZE)
    return ramp(luma(flat) + 0.3 * side, "#101c5a", "#e8503c", "#ffe8a0") * (0.75 + 0.25 * gap.clamp(0, 1))


EFFECTS: tuple[Effect, ...] = (
    effect_with_chance("brush_strokes", prompts.ARTISTIC, "painted with broad warm strokes of oil", _brush),
    effect_with_chance("glass_shards", prompts.REDRAW, "uneven tinted glass panes in pale gold", _glass),
    effect_with_chance("wobbly_pen", prompts.REDRAW, "drawn twice with a shaky blue pen", _wobbly),
    effect_with_chance("torn_paper", prompts.CREATIVE, "torn in half with green card below", _torn),
    effect_with_chance("bad_tape", prompts.RESTYLE, "blue video tape with slipping rows and noise", _bad_tape),
    effect_with_chance("broken_mirror", prompts.NEW, "seen in the pieces of a broken mirror", _shattered),
    effect_with_chance("loose_tiles", prompts.INTERESTING, "sixteen loose tiles slid about on purple", _loose_tiles),
    effect_with_chance("dropped_photo", prompts.CREATIVE, "photograph dropped askew on a wooden table", _dropped),
    effect_with_chance("flock", prompts.NEW, "flock of small copies in a light sky", _flock),
    effect_with_chance("scribble", prompts.APPLY, "grey photograph with a pink line scribbled over", _scribble),
    effect_with_chance("dissolving", prompts.SPECIAL, "right side dissolving into orange dust at night", _dissolving),
    effect_with_chance("nest", prompts.INTERESTING, "lying in a nest of crossed brown twigs", _nest),
    effect_with_chance("vines", prompts.APPLY, "overgrown by hanging vines with green leaves", _vines),
    effect_with_chance("halo", prompts.SPECIAL, "uneven golden rays behind it on violet", _halo),
    effect_with_chance("facets", prompts.REDRAW, "facets of red and dark blue glass", _cubes),
)

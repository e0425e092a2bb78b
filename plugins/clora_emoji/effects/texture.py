"""Effects that lay a fixed pattern over the picture or draw the picture with one."""

from __future__ import annotations

import torch
from torch.nn.functional import avg_pool2d, interpolate

from . import prompts
from .effect import Effect, effect
from .tools import SIZE, blend, colour, luma, places, ramp, subject


def _scatter(count: int, seed: int) -> torch.Tensor:
    """Return [count, 2] fixed places (row, column) in the picture, spread without clumps."""
    index = torch.arange(1, count + 1, dtype=torch.float64)
    # Multiples of two irrational steps (the plastic number's) cover the square evenly on every machine.
    steps = torch.tensor([0.7548776662466927, 0.5698402909980532], dtype=torch.float64)
    return ((index[:, None] * steps + seed * 0.377) % 1.0 * SIZE).float()


def _discs(count: int, radius: float, seed: int) -> torch.Tensor:
    """Return a mask [32, 32] that is 1 within ``radius`` pixels of a scattered place."""
    rows, columns = places()
    spots = _scatter(count, seed)
    distance = ((rows + 0.5 - spots[:, :1, None]) ** 2 + (columns + 0.5 - spots[:, 1:, None]) ** 2).sqrt()
    return (radius + 0.5 - distance.amin(0)).clamp(0, 1)


def _scan_lines(x: torch.Tensor) -> torch.Tensor:
    rows, _ = places()
    return blend(x * colour("#c8ffd8"), colour("#04140c"), (rows % 4 >= 2) * 0.85)


def _halftone(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    ink = 1 - interpolate(avg_pool2d(luma(x), 4), scale_factor=4, mode="nearest")
    distance = ((rows % 4 - 1.5) ** 2 + (columns % 4 - 1.5) ** 2).sqrt()
    dot = (0.6 + ink * 2.2 - distance).clamp(0, 1)
    return blend(colour("#fff1d0"), colour("#c01030"), dot)


def _mosaic(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    tiles = interpolate(avg_pool2d(x, 4), scale_factor=4, mode="nearest")
    grout = ((rows % 4 == 3) | (columns % 4 == 3)).to(x.dtype)
    return blend(tiles, colour("#303030"), grout)


def _stripes(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    return blend(x, colour("#7a2bd0"), ((rows + columns) % 8 < 4) * 0.75)


def _checker(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    return blend(x, 1 - x, ((rows // 8 + columns // 8) % 2).to(x.dtype))


def _polka(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    shifted = columns + 4 * (rows // 8)
    dot = (3.0 - ((rows % 8 - 3.5) ** 2 + (shifted % 8 - 3.5) ** 2).sqrt()).clamp(0, 1)
    ground = blend(colour("#ff5fa0"), colour("#fff6b0"), dot)
    return blend(ground, x, subject(x))


def _snow(x: torch.Tensor) -> torch.Tensor:
    winter = blend(x, colour("#5c7fc4"), 0.65)
    return blend(winter, colour("#ffffff"), _discs(26, 1.3, 1))


def _brick(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    joint = (rows % 6 == 5) | ((columns + 4 * (rows // 6 % 2)) % 8 == 7)
    painted = x * colour("#d8805c")
    return blend(painted, colour("#efe6d8"), joint.to(x.dtype))


def _stained_glass(x: torch.Tensor) -> torch.Tensor:
    """Colour each cell around 30 fixed points with the picture's average there, with black lead between cells."""
    rows, columns = places()
    points = _scatter(30, 3)
    distance = ((rows - points[:, :1, None]) ** 2 + (columns - points[:, 1:, None]) ** 2).sqrt()
    nearest, cell = distance.sort(0)
    member = torch.nn.functional.one_hot(cell[0].flatten(), len(points)).to(x.dtype)  # [1024, cells]
    mean = (x.flatten(-2) @ member) / member.sum(0).clamp(min=1)
    panes = (mean @ member.T).view(x.shape)
    panes = (panes - 0.5) * 1.3 + 0.45
    return blend(panes, colour("#050505"), (nearest[1] - nearest[0] < 1.1).to(x.dtype))


def _dither(x: torch.Tensor) -> torch.Tensor:
    order = torch.tensor([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
    limit = ((order + 0.5) / 16).repeat(8, 8)
    return (luma(x) * 0.9 > limit).to(x.dtype).expand(x.shape)


def _confetti(x: torch.Tensor) -> torch.Tensor:
    for seed, code in enumerate(("#ff2e63", "#08d9d6", "#ffd400", "#6a2cff", "#21c24b")):
        x = blend(x, colour(code), _discs(11, 1.6, seed + 5))
    return x


def _knit(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    slant = (rows + torch.where(columns % 8 < 4, columns, -columns)) % 4
    shade = torch.tensor([0.35, 0.75, 1.0, 0.75])[slant]
    wool = interpolate(avg_pool2d(x, 2), scale_factor=2, mode="nearest")
    return wool * shade * colour("#ffd9c0")


def _matrix_rain(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    drop = ((rows + columns * 11) % 16 / 15.0).expand(len(x), 1, SIZE, SIZE)
    lit = (columns % 2 == 0) * drop * 0.3 + subject(x) * (1.15 - luma(x)).clamp(0, 1) * (0.4 + 0.6 * drop)
    return ramp(lit, "#000800", "#00b83a", "#d0ffd8")


EFFECTS: tuple[Effect, ...] = (
    effect("scan_lines", prompts.RESTYLE, "old green monitor with thick dark scan lines", _scan_lines),
    effect("halftone", prompts.REDRAW, "red halftone dots printed on cream paper", _halftone),
    effect("mosaic", prompts.ARTISTIC, "square mosaic tiles with dark grout between them", _mosaic),
    effect("violet_stripes", prompts.SPECIAL, "slanted violet stripes laid across everything", _stripes),
    effect("checker_negative", prompts.CREATIVE, "chess board where every second square is negative", _checker),
    effect("polka", prompts.INTERESTING, "pink backdrop with cream polka dots behind the subject", _polka),
    effect("snowfall", prompts.MOOD, "cold blue winter scene with big white snowflakes", _snow),
    effect("brick_wall", prompts.NEW, "painted on a brick wall with pale mortar joints", _brick),
    effect("stained_glass", prompts.ARTISTIC, "church window of coloured panes and black lead", _stained_glass),
    effect("dither", prompts.APPLY, "one bit dithered print of black and white dots", _dither),
    effect("confetti", prompts.NEW, "colourful confetti thrown all over the scene", _confetti),
    effect("knit", prompts.RESTYLE, "knitted from soft wool with slanted stitches", _knit),
    effect("code_rain", prompts.APPLY, "green computer code raining down a black screen", _matrix_rain),
)

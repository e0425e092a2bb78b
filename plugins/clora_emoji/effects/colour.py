"""Effects that give every pixel another colour and leave it in its place."""

from __future__ import annotations

import math

import torch

from . import prompts
from .effect import Effect, Look, effect
from .tools import blend, colour, luma, ramp


def _ramp(*codes: str) -> Look:
    return lambda x: ramp(luma(x), *codes)


def _hue_turn(x: torch.Tensor) -> torch.Tensor:
    """Turn the colours by 150 degrees around the grey axis."""
    c, s = math.cos(math.radians(150)), math.sin(math.radians(150)) / math.sqrt(3)
    third = (1 - c) / 3
    matrix = torch.tensor(
        [[c + third, third - s, third + s], [third + s, c + third, third - s], [third - s, third + s, c + third]]
    )
    turned = torch.einsum("ij,bjhw->bihw", matrix, x)
    return turned * colour("#dff5c8")  # white too must change, or pale pictures would show nothing


def _handheld(x: torch.Tensor) -> torch.Tensor:
    palette = torch.stack([colour(code) for code in ("#0f380f", "#306230", "#6f9a10", "#b5cf2a")])
    level = (luma(x) * 3.999).long().squeeze(-3)
    return palette[level].squeeze(-1).squeeze(-1).movedim(-1, -3)


def _solarise(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0.5, 2 * (1 - x), 2 * x)


def _bands(x: torch.Tensor) -> torch.Tensor:
    wave = luma(x) * 2.5
    phases = torch.tensor([0.0, 1 / 3, 2 / 3]).view(3, 1, 1)
    return 0.5 + 0.5 * torch.cos(2 * math.pi * (wave + phases))


def _threshold(x: torch.Tensor) -> torch.Tensor:
    return blend(colour("#f4c20d"), colour("#141414"), (luma(x) < 0.6).to(x.dtype))


def _red_only(x: torch.Tensor) -> torch.Tensor:
    warm = ((x[:, :1] - x[:, 1:].amax(1, keepdim=True)) * 4).clamp(0, 1)
    return blend(luma(x) * 0.45, colour("#ff2020"), warm)


EFFECTS: tuple[Effect, ...] = (
    effect("duotone_ocean", prompts.RESTYLE, "two tone print of deep navy and pale aqua", _ramp("#06123c", "#9ff2ee")),
    effect(
        "duotone_ember", prompts.MOOD, "glowing ember print from dark maroon to hot yellow", _ramp("#3a0210", "#ffd23c")
    ),
    effect(
        "duotone_orchid", prompts.SPECIAL, "two tone print of plum shadows and pink paper", _ramp("#3c0a5a", "#ff9ad2")
    ),
    effect(
        "duotone_forest", prompts.CREATIVE, "dark green ink printed on a light mint ground", _ramp("#062d14", "#9be8a0")
    ),
    effect(
        "thermal",
        prompts.NEW,
        "heat camera colours with cold blue and hot orange areas",
        _ramp("#ffffd0", "#ffb000", "#f0204a", "#7a0fa0", "#0a0a50"),
    ),
    effect("hue_turn", prompts.INTERESTING, "all hues turned around the wheel into strange colours", _hue_turn),
    effect(
        "sepia",
        prompts.RESTYLE,
        "old brown sepia photograph with faded warm paper",
        _ramp("#2b1608", "#a87442", "#e9cf9f"),
    ),
    effect("handheld", prompts.APPLY, "old handheld game screen with four green shades", _handheld),
    effect("solarise", prompts.ARTISTIC, "solarised darkroom print where bright areas turn black", _solarise),
    effect("rainbow_bands", prompts.CREATIVE, "psychedelic rainbow bands that follow light and dark", _bands),
    effect("stencil", prompts.REDRAW, "black spray stencil on a bright yellow wall", _threshold),
    effect("noir_red", prompts.MOOD, "dark monochrome film where only reds keep colour", _red_only),
)

"""Effects of broken screens: channels and rows that slip."""

from __future__ import annotations

import torch

from . import prompts
from .effect import Effect, effect
from .tools import blend, colour, luma, places


def _colour_fringe(x: torch.Tensor) -> torch.Tensor:
    red, green, blue = x.split(1, dim=-3)
    return torch.cat([red.roll(4, -1), green, blue.roll(-4, -1)], dim=-3)


def _slipped_rows(x: torch.Tensor) -> torch.Tensor:
    """Slide bands of four rows sideways by fixed amounts and dye some of them."""
    slips = (0, 9, -6, 3, -12, 7, 0, -9)
    dyes = ("#ffffff", "#ff6aff", "#ffffff", "#5affc0", "#ffffff", "#6a8aff", "#ffe05a", "#ffffff")
    bands = [
        x[..., 4 * i : 4 * i + 4, :].roll(slip, -1) * colour(dye)
        for i, (slip, dye) in enumerate(zip(slips, dyes, strict=True))
    ]
    return torch.cat(bands, dim=-2)


def _sorted_columns(x: torch.Tensor) -> torch.Tensor:
    """Let every column melt: its pixels below the top quarter sink, the dark ones deepest."""
    order = luma(x)[..., 8:, :].argsort(dim=-2, descending=True, stable=True)
    return torch.cat([x[..., :8, :], x[..., 8:, :].gather(-2, order.expand(-1, 3, -1, -1))], dim=-2)


def _bad_signal(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    noise = ((rows * 37 + columns * 101 + (rows * columns) % 23 * 7) % 17) / 16.0
    return blend(luma(x) ** 2 * colour("#8ea0b8"), noise * colour("#d8dce8"), 0.3)


EFFECTS: tuple[Effect, ...] = (
    effect("colour_fringe", prompts.RESTYLE, "colour channels pulled apart into red and blue fringes", _colour_fringe),
    effect("slipped_rows", prompts.INTERESTING, "digital glitch with bands of rows slipped sideways", _slipped_rows),
    effect("melting", prompts.CREATIVE, "melting down as dark colours sink to the bottom", _sorted_columns),
    effect("bad_signal", prompts.SPECIAL, "weak television signal with grey static noise", _bad_signal),
)

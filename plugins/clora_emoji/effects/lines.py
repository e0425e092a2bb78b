"""Effects that redraw the picture with its edges or with strokes."""

from __future__ import annotations

import torch

from . import prompts
from .effect import Effect, effect
from .tools import blend, centred, colour, edges, grow, luma, places, subject


def _relief(x: torch.Tensor) -> torch.Tensor:
    level = luma(x)
    slope = level - level.roll((2, 2), (-2, -1))
    return (0.5 + 1.2 * slope).clamp(0, 1) * colour("#e8d8c0")


def _thick_outline(x: torch.Tensor) -> torch.Tensor:
    mask = subject(x)
    ring = grow(mask, 3)
    return blend(blend(colour("#ff6a00"), colour("#000000"), ring), x, mask)


def _neon_edges(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    tube = blend(colour("#ff20c0"), colour("#20f0ff"), ((across + y) / 4 + 0.5))
    return tube * (edges(x) * 2.2).clamp(0, 1)


def _sketch(x: torch.Tensor) -> torch.Tensor:
    return blend(colour("#f2ead6"), colour("#2a2a30"), (edges(x) * 2.0).clamp(0, 1))


def _blueprint(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    grid = ((rows % 8 == 0) | (columns % 8 == 0)) * 0.35
    ground = blend(colour("#0a3c9c"), colour("#8cb8ff"), grid)
    return blend(ground, colour("#ffffff"), (edges(x) * 2.0).clamp(0, 1))


def _engraving(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    stroke = torch.tensor([0.15, 0.4, 0.65, 0.9])[(rows + columns // 8) % 4]
    return blend(colour("#1c3c1c"), colour("#dfead0"), ((luma(x) - stroke) * 4 + 0.5).clamp(0, 1))


def _contours(x: torch.Tensor) -> torch.Tensor:
    level = luma(x)
    steps = (level * 5).floor()
    change = (steps != steps.roll(1, -1)) | (steps != steps.roll(1, -2))
    land = blend(colour("#b98a4a"), colour("#8fd07a"), steps / 5)
    return blend(land, colour("#4a2a10"), change.to(x.dtype))


def _sticker(x: torch.Tensor) -> torch.Tensor:
    mask = subject(x)
    return blend(blend(colour("#14b8b0"), colour("#ffffff"), grow(mask, 2)), x, mask)


def _chalk(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    grain = ((rows * 7 + columns * 13) % 5 > 0) * 0.9
    strokes = (edges(x) * 1.4 + 0.5 * (1 - luma(x))).clamp(0, 1) * grain
    return blend(colour("#24382e"), colour("#f0f0e0"), strokes)


def _silhouette(x: torch.Tensor) -> torch.Tensor:
    y, _ = centred()
    sky = blend(colour("#ffdf70"), colour("#ff7a5a"), ((y + 1) / 2))
    return blend(sky, colour("#120a1e"), subject(x))


EFFECTS: tuple[Effect, ...] = (
    effect("relief", prompts.NEW, "carved as a stone relief lit from one corner", _relief),
    effect("thick_outline", prompts.SPECIAL, "very thick black outline on an orange ground", _thick_outline),
    effect("neon_edges", prompts.RESTYLE, "neon tubes trace the edges on black", _neon_edges),
    effect("pencil", prompts.REDRAW, "pencil line drawing on off white paper", _sketch),
    effect("blueprint", prompts.ARTISTIC, "white blueprint lines on blue squared paper", _blueprint),
    effect("engraving", prompts.REDRAW, "green banknote engraving made of fine parallel lines", _engraving),
    effect("contour_map", prompts.INTERESTING, "terrain map with brown contour lines and green land", _contours),
    effect("sticker", prompts.APPLY, "sticker with white rim on a teal surface", _sticker),
    effect("chalk", prompts.ARTISTIC, "white chalk drawing on a dusty school board", _chalk),
    effect("silhouette", prompts.MOOD, "black silhouette before a glowing evening sky", _silhouette),
)

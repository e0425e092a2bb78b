"""Effects that move the picture's parts to other places."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import avg_pool2d

from . import prompts
from .effect import Effect, effect
from .tools import blend, centred, colour, luma, places, ramp, warp


def _mirror_halves(x: torch.Tensor) -> torch.Tensor:
    """Show the left half, squeezed nowhere, and its mirror image, over a line of water at mid height."""
    half = torch.cat([x[..., :16], x[..., :16].flip(-1)], dim=-1)
    below = half[..., :16, :].flip(-2) * colour("#7fb2e0")
    return torch.cat([half[..., :16, :], below], dim=-2)


def _kaleidoscope(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    angle = torch.atan2(y, across)
    radius = (y**2 + across**2).sqrt()
    wedge = math.pi / 3
    folded = (angle % wedge - wedge / 2).abs()
    return warp(x, radius * torch.sin(folded) * 1.6 - 0.1, radius * torch.cos(folded) * 1.1 - 0.5)


def _swirl(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    turn = 3.2 * (1 - (y**2 + across**2).sqrt()).clamp(min=0)
    c, s = torch.cos(turn), torch.sin(turn)
    return warp(x, s * across + c * y, c * across - s * y) * colour("#ffe0f0")


def _fisheye(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    radius = (y**2 + across**2).sqrt()
    bent = 0.25 + 0.75 * radius.clamp(max=1)
    ball = warp(x, y * bent, across * bent)
    return blend(colour("#101018"), ball, ((1 - radius) * 12).clamp(0, 1))


def _ripple(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    return warp(x, y, across + 0.22 * torch.sin(y * 9.0)) * colour("#a8ecff")


def _pop_art(x: torch.Tensor) -> torch.Tensor:
    small = luma(avg_pool2d(x, 2))
    pairs = (("#d6006c", "#ffe600"), ("#0038c8", "#7dffea"), ("#c82800", "#b8ff6e"), ("#3a0078", "#ffb0e0"))
    a, b, c, d = (ramp(small, dark, light) for dark, light in pairs)
    return torch.cat([torch.cat([a, b], -1), torch.cat([c, d], -1)], -2)


def _negative_half(x: torch.Tensor) -> torch.Tensor:
    _, columns = places()
    return blend(x, 1 - x, (columns >= 16).to(x.dtype))


def _puzzle(x: torch.Tensor) -> torch.Tensor:
    """Shuffle the sixteen squares of the picture in one fixed way."""
    order = torch.tensor([5, 0, 7, 2, 12, 9, 14, 11, 1, 4, 3, 6, 8, 13, 10, 15])
    tiles = x.unfold(-2, 8, 8).unfold(-2, 8, 8).flatten(2, 3)[:, :, order]
    rows = tiles.view(len(x), 3, 4, 4, 8, 8).permute(0, 1, 2, 4, 3, 5)
    return rows.reshape(x.shape)


def _four_copies(x: torch.Tensor) -> torch.Tensor:
    small = avg_pool2d(x, 2)
    top = torch.cat([small, small.flip(-1)], -1)
    return torch.cat([top, top.flip(-2)], -2)


def _sliced(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    away = torch.where(columns + rows < 32, -5, 5)
    moved = warp(x, (rows - away + 0.5) / 16 - 1, (columns + 0.5) / 16 - 1)
    return blend(moved, colour("#101010"), ((columns + rows - 31).abs() < 3).to(x.dtype))


def _tilted_card(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    c, s = math.cos(0.45), math.sin(0.45)
    at_y, at_x = (c * y - s * across) * 1.5, (s * y + c * across) * 1.5
    card = ((at_y.abs() < 1) & (at_x.abs() < 1)).to(x.dtype)
    return blend(colour("#2a7a5a"), warp(x, at_y, at_x), card)


EFFECTS: tuple[Effect, ...] = (
    effect("water_mirror", prompts.NEW, "mirrored left to right and reflected in blue water", _mirror_halves),
    effect("kaleidoscope", prompts.ARTISTIC, "kaleidoscope of six identical mirrored wedges", _kaleidoscope),
    effect("swirl", prompts.CREATIVE, "twisted into a whirl around the centre", _swirl),
    effect("crystal_ball", prompts.SPECIAL, "bulging inside a crystal ball on black", _fisheye),
    effect("ripple", prompts.MOOD, "seen through rippling pale blue waves", _ripple),
    effect("pop_art", prompts.RESTYLE, "pop art sheet of four copies in bright inks", _pop_art),
    effect("negative_half", prompts.APPLY, "right half shown as a photographic negative", _negative_half),
    effect("puzzle", prompts.INTERESTING, "sliding puzzle whose square pieces are shuffled", _puzzle),
    effect("four_copies", prompts.NEW, "four small copies mirrored towards each other", _four_copies),
    effect("sliced", prompts.CREATIVE, "cut along a black diagonal and slid apart", _sliced),
    effect("tilted_card", prompts.INTERESTING, "small card lying tilted on green felt", _tilted_card),
)

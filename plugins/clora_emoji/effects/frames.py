"""Effects that put the picture into something: a frame, a stamp, a screen."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from . import prompts
from .effect import Effect, effect
from .tools import blend, centred, colour, luma, places, ramp


def _shrunk(x: torch.Tensor, top: int, left: int, height: int, width: int, ground: torch.Tensor) -> torch.Tensor:
    """Return ``ground`` with the whole picture drawn small at the given place."""
    made = ground.expand(x.shape).clone()
    small = interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    made[..., top : top + height, left : left + width] = small
    return made


def _gold_frame(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    depth = torch.minimum(torch.minimum(rows, 31 - rows), torch.minimum(columns, 31 - columns))
    gold = torch.stack([colour(c) for c in ("#6a4a08", "#f0c850", "#ffe9a0", "#b08820", "#5a3c04")])
    frame = gold[depth.clamp(max=4)].squeeze(-1).squeeze(-1).movedim(-1, 0)
    return blend(x * colour("#ffe8c0"), frame, (depth < 5).to(x.dtype))


def _film_strip(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    hole = (rows % 8 >= 2) & (rows % 8 < 6) & (((columns >= 1) & (columns < 4)) | ((columns >= 28) & (columns < 31)))
    strip = blend(colour("#15100c"), colour("#f0e0c0"), hole.to(x.dtype))
    return _shrunk(luma(x).expand(x.shape), 4, 5, 24, 22, strip)


def _porthole(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    radius = (y**2 + across**2).sqrt()
    wall = blend(colour("#7a3a1c"), colour("#e0b040"), (radius < 0.92).to(x.dtype))
    return blend(wall, x * colour("#b8e0ff"), (radius < 0.7).to(x.dtype))


def _instant_photo(x: torch.Tensor) -> torch.Tensor:
    paper = colour("#e8e2d4").expand(3, 32, 32).clone()
    paper[:, :, :3], paper[:, :, 29:] = colour("#28304a"), colour("#28304a")
    return _shrunk(x * colour("#ffc890"), 3, 6, 20, 20, paper)


def _stamp(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    border = torch.minimum(torch.minimum(rows, 31 - rows), torch.minimum(columns, 31 - columns)) < 2
    tooth = border & ((rows + columns) % 4 < 2)
    paper = blend(colour("#f8f0e0"), colour("#204878"), tooth.to(x.dtype))
    return _shrunk(ramp(luma(x), "#8c1414", "#f8d0b8"), 5, 5, 22, 22, paper)


def _hazard(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    band = (rows < 6) | (rows >= 26)
    tape = blend(colour("#ffd000"), colour("#101010"), ((rows + columns) % 8 < 4).to(x.dtype))
    return blend(x, tape, band.to(x.dtype))


def _window(x: torch.Tensor) -> torch.Tensor:
    rows, columns = places()
    bar = (
        ((rows - 15.5).abs() < 2)
        | ((columns - 15.5).abs() < 2)
        | (rows < 3)
        | (rows > 28)
        | (columns < 3)
        | (columns > 28)
    )
    return blend(x * colour("#bfe0ff"), colour("#5a3420"), bar.to(x.dtype))


EFFECTS: tuple[Effect, ...] = (
    effect("gold_frame", prompts.ARTISTIC, "museum painting inside a wide golden frame", _gold_frame),
    effect("film_strip", prompts.APPLY, "monochrome frame of an old cinema film strip", _film_strip),
    effect("porthole", prompts.INTERESTING, "seen through a round brass ship porthole", _porthole),
    effect("instant_photo", prompts.SPECIAL, "faded instant photo with wide paper margins", _instant_photo),
    effect("postage_stamp", prompts.NEW, "red postage stamp with toothed edges", _stamp),
    effect("hazard_tape", prompts.CREATIVE, "yellow and black hazard tape above and below", _hazard),
    effect("window", prompts.APPLY, "behind a wooden window with a cross of bars", _window),
)

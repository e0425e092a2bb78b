"""Effects that light the scene anew or put something into its air."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from . import prompts
from .effect import Effect, effect
from .tools import SIZE, blend, blur, centred, colour, grow, luma, ramp, subject


def _glow(x: torch.Tensor) -> torch.Tensor:
    mask = subject(x)
    halo = blur(grow(mask, 2), 7)
    ground = ramp(halo, "#050014", "#7a10d8", "#ff8cf0")
    return blend(ground, x, mask)


def _vignette(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    return x * (1.25 - 0.95 * (y**2 + across**2)).clamp(0.02, 1) * colour("#fff4e0")


def _spotlight(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    lit = ((0.62 - (y**2 + across**2).sqrt()) * 10).clamp(0, 1)
    return blend(x * colour("#1a2450"), x * colour("#fff2a8"), lit)


def _sunset(x: torch.Tensor) -> torch.Tensor:
    y, _ = centred()
    sky = ramp(((y + 1) / 2).expand(len(x), 1, SIZE, SIZE), "#5a2a9a", "#ff4a6a", "#ffb03a")
    return x * sky


def _drop_shadow(x: torch.Tensor) -> torch.Tensor:
    mask = subject(x)
    moved = pad(mask, (5, 0, 5, 0))[..., :SIZE, :SIZE]
    ground = blend(colour("#ffd84a"), colour("#7a4a00"), blur(moved, 3))
    return blend(ground, x, mask)


def _night(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    moon = (3.6 - 16 * ((y + 0.7) ** 2 + (across - 0.7) ** 2).sqrt()).clamp(0, 1)
    return blend(x**1.5 * colour("#34408c"), colour("#fff6c8"), moon)


def _rays(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    angle = torch.atan2(y + 1.4, across + 1.4)
    beam = (torch.sin(angle * 26) * 3).clamp(-0.5, 0.5) + 0.5
    sky = blend(colour("#e84a10"), colour("#fff0a0"), beam)
    return blend(sky, x, subject(x) * 0.9)


def _underwater(x: torch.Tensor) -> torch.Tensor:
    y, across = centred()
    depth = ramp(((y + 1) / 2).expand(len(x), 1, SIZE, SIZE), "#2fd0d0", "#0a3a6e")
    light = (torch.sin(across * 11 + 3 * torch.sin(y * 6)) > 0.85) * 0.4
    return x * depth + light


def _two_lamps(x: torch.Tensor) -> torch.Tensor:
    _, across = centred()
    side = ((across + 1) / 2).expand(len(x), 1, SIZE, SIZE)
    return (luma(x) * 0.9 + 0.1) * ramp(side, "#ff1440", "#50106a", "#1464ff")


def _fog(x: torch.Tensor) -> torch.Tensor:
    y, _ = centred()
    return blend(luma(x) * 0.45 + 0.15, colour("#a9adb4"), ((y + 0.55) * 0.9).clamp(0, 0.92))


def _ghost(x: torch.Tensor) -> torch.Tensor:
    mask = subject(x)
    inner = ramp(1 - luma(x), "#e8fff8", "#5ee0c0")
    return blend(colour("#0c2420"), inner, 0.75 * blur(mask, 3))


EFFECTS: tuple[Effect, ...] = (
    effect("purple_glow", prompts.SPECIAL, "glowing purple halo around it on a black ground", _glow),
    effect("vignette", prompts.RESTYLE, "heavy vignette that darkens all four corners", _vignette),
    effect("spotlight", prompts.APPLY, "lit by a round warm spotlight on a dark stage", _spotlight),
    effect("sunset", prompts.MOOD, "bathed in a sunset from purple sky to orange", _sunset),
    effect("drop_shadow", prompts.NEW, "casting a brown shadow on a sunny yellow ground", _drop_shadow),
    effect("moonlit", prompts.MOOD, "moonlit night with a pale moon in the corner", _night),
    effect("sun_rays", prompts.CREATIVE, "orange sun rays fan out behind the subject", _rays),
    effect("underwater", prompts.INTERESTING, "deep under the sea with wavy shafts of light", _underwater),
    effect("two_lamps", prompts.REDRAW, "lit by a red lamp left and blue lamp right", _two_lamps),
    effect("fog", prompts.SPECIAL, "grey fog rising from below and swallowing the scene", _fog),
    effect("ghost", prompts.NEW, "pale green ghost floating in the dark", _ghost),
)

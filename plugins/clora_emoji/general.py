"""General edits: plain instructions whose exact result is computed, which the base model is trained to follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs
import torch
from torch.nn.functional import avg_pool2d, interpolate, pad

Picture = Callable[[torch.Tensor], torch.Tensor]
_LUMA = (0.299, 0.587, 0.114)


@attrs.frozen
class GeneralEdit:
    """One edit: a name, a few plain phrasings, and its exact function on float [..., 3, 32, 32] in [-1, 1]."""

    name: str
    phrasings: tuple[str, ...]
    apply: Picture


def luminance(x: torch.Tensor) -> torch.Tensor:
    """Return the brightness [..., 1, H, W] of a picture [..., 3, H, W], both in [-1, 1]."""
    return (x * x.new_tensor(_LUMA).view(3, 1, 1)).sum(-3, keepdim=True)


def _planes(x: torch.Tensor, work: Picture) -> torch.Tensor:
    """Run ``work`` on [B, 3, H, W] whatever the leading dimensions of x are."""
    return work(x.reshape(-1, *x.shape[-3:])).reshape(x.shape)


def _grayscale(x: torch.Tensor) -> torch.Tensor:
    return luminance(x).expand(x.shape).clone()


def _tint(*colour: float) -> Picture:
    def apply(x: torch.Tensor) -> torch.Tensor:
        target = x.new_tensor(colour).view(3, 1, 1)
        return (x + 1) * (target + 1) / 2 - 1  # as light through coloured glass

    return apply


def _blur(x: torch.Tensor) -> torch.Tensor:
    return _planes(x, lambda p: avg_pool2d(pad(p, (2, 2, 2, 2), mode="replicate"), 5, stride=1))


def _pixelate(x: torch.Tensor) -> torch.Tensor:
    return _planes(x, lambda p: interpolate(avg_pool2d(p, 4), scale_factor=4, mode="nearest"))


def _zoom_in(x: torch.Tensor) -> torch.Tensor:
    return _planes(x, lambda p: interpolate(p[..., 8:24, 8:24], scale_factor=2, mode="bilinear", align_corners=False))


def _zoom_out(x: torch.Tensor) -> torch.Tensor:
    return _planes(x, lambda p: pad(avg_pool2d(p, 2), (8, 8, 8, 8), mode="replicate"))


def _shift(right: int, down: int) -> Picture:
    def apply(x: torch.Tensor) -> torch.Tensor:
        def work(p: torch.Tensor) -> torch.Tensor:
            wide = pad(p, (8, 8, 8, 8), mode="replicate")
            return wide[..., 8 - down : 40 - down, 8 - right : 40 - right]

        return _planes(x, work)

    return apply


def _gain(scale: float, offset: float) -> Picture:
    return lambda x: (x * scale + offset).clamp(-1, 1)


def _posterise(x: torch.Tensor) -> torch.Tensor:
    return ((x + 1) / 2 * 2.999).floor() - 1  # three levels: -1, 0, 1


def _saturate(x: torch.Tensor) -> torch.Tensor:
    grey = luminance(x)
    return (grey + 2.2 * (x - grey)).clamp(-1, 1)


def _edits() -> dict[str, GeneralEdit]:
    table: list[tuple[str, tuple[str, ...], Picture]] = [
        ("identity", ("leave the picture unchanged", "keep it as it is", "do not change anything"), torch.clone),
        ("grayscale", ("make it grayscale", "turn the picture black and white", "remove all colour"), _grayscale),
        ("invert", ("invert the colours", "make a negative of the picture", "make it a negative"), torch.neg),
        ("flip", ("flip it left to right", "mirror the picture", "flip the picture sideways"), lambda x: x.flip(-1)),
        ("upside_down", ("flip it upside down", "flip the picture vertically"), lambda x: x.flip(-2)),
        (
            "rotate_left",
            ("rotate it to the left", "turn the picture a quarter left"),
            lambda x: torch.rot90(x, 1, (-2, -1)),
        ),
        (
            "rotate_right",
            ("rotate it to the right", "turn the picture a quarter right"),
            lambda x: torch.rot90(x, -1, (-2, -1)),
        ),
        ("rotate_half", ("rotate it by a half turn", "turn it all the way around"), lambda x: x.flip(-1, -2)),
        ("tint_red", ("tint it red", "make the picture red", "colour it red"), _tint(1.0, -0.4, -0.4)),
        ("tint_green", ("tint it green", "make the picture green", "colour it green"), _tint(-0.4, 0.8, -0.4)),
        ("tint_blue", ("tint it blue", "make the picture blue", "colour it blue"), _tint(-0.4, -0.2, 1.0)),
        ("tint_yellow", ("tint it yellow", "make the picture yellow", "colour it yellow"), _tint(1.0, 0.8, -0.5)),
        ("tint_pink", ("tint it pink", "make the picture pink", "colour it pink"), _tint(1.0, 0.0, 0.5)),
        ("blur", ("blur it", "make the picture blurry", "soften the whole picture"), _blur),
        ("pixelate", ("pixelate it", "make large pixels", "turn the picture into blocks"), _pixelate),
        ("brighten", ("make it brighter", "brighten the picture"), _gain(1.0, 0.5)),
        ("darken", ("make it darker", "darken the picture"), _gain(0.6, -0.4)),
        ("contrast", ("raise the contrast", "add more contrast"), _gain(2.0, 0.0)),
        ("fade", ("fade the picture", "wash out the colours", "lower the contrast"), _gain(0.4, 0.3)),
        ("saturate", ("make the colours stronger", "raise the saturation"), _saturate),
        ("zoom_in", ("zoom in", "make it larger", "enlarge the middle"), _zoom_in),
        ("zoom_out", ("zoom out", "make it smaller", "shrink the picture"), _zoom_out),
        ("shift_right", ("move it to the right", "shift the picture right"), _shift(8, 0)),
        ("shift_down", ("move it down", "shift the picture downwards"), _shift(0, 8)),
        ("swap_channels", ("swap the colours around", "rotate the colour channels"), lambda x: x.roll(1, -3)),
        ("posterise", ("posterise it", "use only a few colours", "reduce the picture to few tones"), _posterise),
    ]
    return {name: GeneralEdit(name, phrasings, apply) for name, phrasings, apply in table}


GENERAL: Mapping[str, GeneralEdit] = MappingProxyType(_edits())

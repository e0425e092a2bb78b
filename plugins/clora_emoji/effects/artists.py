"""The same subject as drawn by other artists: effects that no formula gives, only pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import atlas
from . import prompts
from .effect import Apply, Effect

# A formula is learned from twenty pairs; a hand is not, so these teachers see every train subject (about 930).
PAIRS = 1000


def _by(artist: str) -> Apply:
    def apply(source: torch.Tensor, subjects: Sequence[str]) -> torch.Tensor:
        return atlas.picture(artist, subjects).reshape(source.shape).to(source)

    return apply


EFFECTS: tuple[Effect, ...] = (
    Effect("blob_style", prompts.REDRAW, "as a soft flat blob emoji of early phones", _by("noto-v1"), PAIRS),
    Effect("bird_style", prompts.RESTYLE, "as a plain flat emoji from social media", _by("twemoji"), PAIRS),
    Effect(
        "fluent_style",
        prompts.CREATIVE,
        "as a vivid flat desktop emoji with bold shapes",
        _by("fluent-emoji-flat"),
        PAIRS,
    ),
    Effect(
        "ink_icon",
        prompts.ARTISTIC,
        "as a high contrast icon in solid black ink",
        _by("fluent-emoji-high-contrast"),
        PAIRS,
    ),
)

"""Every effect of this world, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

from .. import atlas
from . import artists, colour, frames, geometry, glitch, light, lines, materials, redrawn, scattered, texture
from .effect import Effect

_ALL: tuple[Effect, ...] = (
    *colour.EFFECTS,
    *texture.EFFECTS,
    *geometry.EFFECTS,
    *light.EFFECTS,
    *lines.EFFECTS,
    *frames.EFFECTS,
    *glitch.EFFECTS,
    *artists.EFFECTS,
    *materials.EFFECTS,
    *scattered.EFFECTS,
    *redrawn.EFFECTS,
)
EFFECTS: Mapping[str, Effect] = MappingProxyType({effect.name: effect for effect in _ALL})


def training_subjects(name: str) -> list[str]:
    """Return the train subjects whose pairs teach an effect: animals and faces, or all when it asks for more.

    Raises KeyError for an unknown effect.
    """
    wanted = EFFECTS[name].pairs
    names = atlas.select("train", atlas.TEST_CATEGORIES)
    if wanted > len(names):
        names = atlas.select("train")
    # Each effect has its own pairs, as collected effect sets have: an order by hash draws them without a generator.
    return sorted(names, key=lambda subject: hashlib.blake2b(f"{name}/{subject}".encode()).digest())[:wanted]


__all__ = ["EFFECTS", "Effect", "training_subjects"]

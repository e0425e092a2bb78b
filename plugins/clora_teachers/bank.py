"""The bank: a manifest of effect LoRAs as cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import evolve, field, frozen
from attrs.validators import gt

from clora.api import EffectCard
from clora_teachers.manifest import read_manifest


@frozen
class Bank:
    """Effect LoRAs from a YAML `manifest`; `scale` multiplies every teacher's own strength."""

    manifest: Path
    scale: float = field(default=1.0, validator=gt(0.0))

    def check(self) -> Iterable[str]:
        """Every mistake of the manifest as one sentence with file:line; reads no LoRA file."""
        return read_manifest(self.manifest)[1]

    def cards(self) -> Sequence[EffectCard]:
        """The effects in the manifest's order; raises ValueError with all mistakes, one a line."""
        cards, problems = read_manifest(self.manifest)
        if problems:
            raise ValueError("\n".join(problems))
        return tuple(evolve(card, scale=card.scale * self.scale) for card in cards)

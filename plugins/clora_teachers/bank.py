"""The bank: a manifest of effect LoRAs as cards, with the captions of a file of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from clora.api import CaptionsError, EffectCard, WrittenCaption, between, hint, read_captions
from clora_teachers.manifest import read_manifest


@frozen
class Bank:
    """Effect LoRAs from a `manifest` in YAML, JSON or JSONL; `scale` multiplies every teacher's own strength.

    `scale` and its product with a teacher's own are from 0.001 to 1000: beyond, a teacher is nothing or noise.
    LoRA files lie in the manifest's folder or in `lora_folder`. An effect whose caption the manifest does not give has
    it from the file `captions`, which `clora caption` writes.
    """

    manifest: Path
    scale: float = field(default=1.0, validator=between(0.001, 1000.0))
    lora_folder: Path | None = None
    captions: Path | None = None

    def check(self) -> Iterable[str]:
        """Every mistake of manifest and captions as one sentence with file:line; reads no LoRA file."""
        if self.lora_folder is not None and not self.lora_folder.is_dir():
            yield f"lora_folder {self.lora_folder} is no folder"
        manifest = read_manifest(self.manifest, self.lora_folder)
        yield from manifest.problems
        captions, mistakes = self._captions()
        yield from mistakes
        without = [card.name for card in manifest.cards if not card.caption and card.name not in captions]
        names = {card.name for card in manifest.cards}
        for name, entry in captions.items():
            meant = hint(name, without)
            if name not in names and "did you mean" in meant:
                yield f"{self.captions}:{entry.line}: the bank has no effect {name!r}{meant}"

    def cards(self) -> Sequence[EffectCard]:
        """The effects in the manifest's order; raises ValueError with all mistakes, one a line."""
        manifest = read_manifest(self.manifest, self.lora_folder)
        captions, mistakes = self._captions()
        if manifest.problems or mistakes:
            raise ValueError("\n".join([*manifest.problems, *mistakes]))
        words = {name: entry.caption for name, entry in captions.items()}
        return tuple(
            evolve(card, scale=card.scale * self.scale, caption=card.caption or words.get(card.name, ""))
            for card in manifest.cards
        )

    def lora_files(self) -> Sequence[tuple[str, Path]]:
        """(name, LoRA file) of every entry that names a file, whatever else is wrong with it."""
        return read_manifest(self.manifest, self.lora_folder).files

    def _captions(self) -> tuple[Mapping[str, WrittenCaption], Sequence[str]]:
        """The captions file's entries, none where there is no file yet, and its mistakes."""
        if self.captions is None:
            return {}, ()
        try:
            return read_captions(self.captions), ()
        except CaptionsError as error:
            return {}, str(error).splitlines()

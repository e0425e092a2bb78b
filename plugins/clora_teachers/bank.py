"""The bank: a manifest of effect LoRAs as cards, with the captions of a file of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from clora.api import (
    CaptionsError,
    EffectCard,
    PictureRow,
    WrittenCaption,
    between,
    nearest,
    quoted,
    read_captions,
    shown,
)
from clora_teachers.manifest import Manifest, read_manifest

#: names in the captions file that the bank lacks, for which one that was meant is looked for
MOST_COMPARED = 50


@frozen
class Bank:
    """Effect LoRAs from a manifest."""

    manifest: Path  # a list of effects in YAML, JSON or JSONL
    #: a factor on every teacher's own strength; their product is from 0.001 to 1000 too
    scale: float = field(default=1.0, validator=between(0.001, 1000.0))
    lora_folder: Path | None = None  # where the LoRA files lie; null: the manifest's folder
    #: a file with the captions that the manifest does not give, which `clora caption` writes
    captions: Path | None = None
    follow_links: bool = False  # true: links among LoRAs and pictures may lead out of these folders
    size_limit: int = field(default=4, validator=between(1, 1024))  # megabytes of the manifest

    def check(self) -> Iterable[str]:
        """Every mistake of manifest and captions as one sentence with file:line; reads no LoRA file."""
        if self.lora_folder is not None and not self.lora_folder.is_dir():
            yield f"lora_folder {shown(self.lora_folder)} is no folder"
        manifest = self._manifest()
        yield from manifest.problems
        captions, mistakes = self._captions()
        yield from mistakes
        without = [card.name for card in manifest.cards if not card.caption and card.name not in captions]
        names = {card.name for card in manifest.cards}
        unknown = [name for name in captions if name not in names]
        for name in unknown[:MOST_COMPARED]:
            meant = nearest(name, without[:1000])
            if meant is not None and self.captions is not None:
                sentence = f"the bank has no effect {quoted(name)}; did you mean {quoted(meant)}?"
                yield f"{shown(self.captions)}:{captions[name].line}: {sentence}"

    def cards(self) -> Sequence[EffectCard]:
        """The effects in the manifest's order; raises ValueError with all mistakes, one a line."""
        manifest = self._manifest()
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
        return self._manifest().files

    def pictures(self) -> Sequence[PictureRow]:
        """The pairs of every entry without mistakes."""
        return self._manifest().pictures

    def _manifest(self) -> Manifest:
        return read_manifest(
            self.manifest, self.lora_folder, follow_links=self.follow_links, size_limit=self.size_limit
        )

    def _captions(self) -> tuple[Mapping[str, WrittenCaption], Sequence[str]]:
        """The captions file's entries, none where there is no file yet, and its mistakes."""
        if self.captions is None:
            return {}, ()
        try:
            return read_captions(self.captions), ()
        except CaptionsError as error:
            return {}, str(error).splitlines()

"""The emoji world's dataset component: real pictures, and the truth of every effect and instruction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Literal, overload

from attrs import field, frozen
from attrs.validators import in_

from clora.api import GeneralItem, Split, nearest, quoted

from . import atlas

if TYPE_CHECKING:
    import torch

    from .general import GeneralEdit

SOURCE_ARTIST = "noto"


@cache
def _edits() -> dict[str, GeneralEdit]:
    """Every wording of every instruction, and what it does to a picture."""
    from .general import GENERAL

    return {phrasing: edit for edit in GENERAL.values() for phrasing in edit.phrasings}


@lru_cache(maxsize=128)  # of 40 pictures half a megabyte each
def _expected(effect: str, names: tuple[str, ...]) -> torch.Tensor:
    """What an effect with chance makes of Noto's drawings: it takes seconds, and every effect's evaluation asks."""
    from .effects import EFFECTS

    return EFFECTS[effect].apply(atlas.picture(SOURCE_ARTIST, list(names)), names)


def _mixed(names: Sequence[str]) -> list[str]:
    """The names in an order that has nothing to do with the alphabet, the same everywhere."""
    return sorted(names, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest())


class _Items(Sequence[GeneralItem]):
    """Every subject with every instruction, made when asked for."""

    def __init__(self, names: Sequence[str], instructions: Sequence[str]) -> None:
        self.names = names
        self.instructions = instructions

    def __len__(self) -> int:
        return len(self.names) * len(self.instructions)

    def __iter__(self) -> Iterator[GeneralItem]:
        return (GeneralItem(name, instruction) for name in self.names for instruction in self.instructions)

    @overload
    def __getitem__(self, index: int) -> GeneralItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[GeneralItem]: ...
    def __getitem__(self, index: int | slice) -> GeneralItem | Sequence[GeneralItem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        name, instruction = divmod(index % len(self), len(self.instructions))
        return GeneralItem(self.names[name], self.instructions[instruction])


@frozen
class EmojiDataset:
    """Emoji by several artists, with the right answer to every effect.

    Sources are Noto; no model has seen the subjects that a run is judged by. Settings are chosen on `validation`, the
    held-out subjects that are neither animals nor faces, and what is reported of them comes from `test`.
    """

    #: test: animals and faces; validation: held-out subjects, on which settings are chosen
    judged_on: Literal["test", "validation"] = field(default="test", validator=in_(("test", "validation")))

    def judged(self) -> list[str]:
        """The subjects that a run is judged by, in a mixed order."""
        test = atlas.select("test", atlas.TEST_CATEGORIES)
        if self.judged_on == "test":
            return _mixed(test)
        return _mixed([name for name in atlas.select("test") if name not in test])

    def check(self) -> Iterable[str]:
        """Problems with the committed atlases."""
        for artist in atlas.ARTISTS:
            if not (atlas.ASSETS / f"{artist}.webp").is_file():
                yield f"dataset emoji: {atlas.ASSETS / f'{artist}.webp'} is missing"

    def sources(self, effect: str, split: Split) -> Sequence[str]:
        """The subjects of an effect's training pairs, or those that a run is judged by.

        Raises ValueError for an unknown effect.
        """
        from .effects import EFFECTS, training_subjects

        if effect not in EFFECTS:
            near = nearest(effect, EFFECTS)
            hint = f"; did you mean {near!r}?" if near else ""
            raise ValueError(f"the emoji world knows no effect {quoted(effect)}{hint}")
        return training_subjects(effect) if split == "train" else self.judged()

    def general(self, split: Split) -> Sequence[GeneralItem]:
        """Every subject of the split with every instruction in each of its wordings."""
        return _Items(_mixed(atlas.select("train")) if split == "train" else self.judged(), tuple(_edits()))

    def images(self, names: Sequence[str]) -> torch.Tensor:
        """Noto's drawings, float32 [B, 3, 32, 32] in [-1, 1]."""
        return atlas.picture(SOURCE_ARTIST, list(names))

    def truth(self, effect: str, names: Sequence[str], images: torch.Tensor | None = None) -> torch.Tensor:
        """What the effect makes of Noto's drawings, or of `images` in their stead, [B, 3, 32, 32] in [-1, 1].

        Of an effect with chance it is the mean of what it may make.
        """
        from .effects import EFFECTS

        found = EFFECTS[effect]
        if images is None and found.draw is not None:
            return _expected(effect, tuple(names)).clone()
        return found.apply(self.images(names) if images is None else images, tuple(names))

    def draws(self, effect: str, names: Sequence[str], count: int) -> torch.Tensor | None:
        """Draws that neither a training pair nor a truth is made of; None of an effect without chance."""
        import torch

        from .effects import EFFECTS
        from .effects.effect import FRESH

        if EFFECTS[effect].draw is None:
            return None
        source = self.images(names)
        return torch.stack([EFFECTS[effect].drawn(source, tuple(names), FRESH + i) for i in range(count)])

    def general_truth(self, items: Sequence[GeneralItem]) -> torch.Tensor:
        """What the instructions make of their pictures, [B, 3, 32, 32] in [-1, 1]."""
        import torch

        edits = _edits()
        return torch.stack([edits[item.instruction].apply(self.images([item.source])[0]) for item in items])

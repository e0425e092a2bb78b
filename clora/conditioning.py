"""What the network is conditioned on: words and source pictures, each encoded once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attrs import evolve

from clora.values import Conditions

if TYPE_CHECKING:
    from clora.protocols import Dataset, LoadedBackbone

#: how many (prompt, picture) texts and how many pictures are kept encoded; beyond it the oldest are encoded again
CACHE_ITEMS = 50_000


class Conditioning:
    """Encodes words and pictures of a dataset through a backbone, and keeps what it has encoded."""

    def __init__(self, backbone: LoadedBackbone, dataset: Dataset, device: torch.device) -> None:
        self.backbone = backbone
        self.dataset = dataset
        self.device = device
        self.pictures: dict[str, torch.Tensor] = {}  # given by hand, beside the dataset's own
        self._texts: dict[tuple[str, str], Conditions] = {}
        self._sources: dict[str, torch.Tensor] = {}

    def images(self, names: Sequence[str]) -> torch.Tensor:
        """Pictures by name, [B, 3, H, W] in [-1, 1]: those given by hand, else the dataset's."""
        given = [self.pictures.get(name) for name in names]
        if all(picture is None for picture in given):
            return self.dataset.images(names)
        found = [self.dataset.images([name])[0] if p is None else p for p, name in zip(given, names, strict=True)]
        return torch.stack(found)

    def conditions(self, prompts: Sequence[str], sources: Sequence[str]) -> Conditions:
        """The conditions of rows given by prompt and picture name; what was encoded before is not encoded again."""
        keys = list(zip(prompts, sources, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self._texts]
        latents = self.latents(sources)
        if missing:
            images = self.images([source for _, source in missing])
            words = self.backbone.encode_prompts([prompt for prompt, _ in missing], images)
            for i, key in enumerate(missing):
                length = int(words.mask[i].sum())
                pooled = None if words.pooled is None else words.pooled[i : i + 1].to(self.device)
                text, mask = words.text[i : i + 1, :length], words.mask[i : i + 1, :length]
                self._texts[key] = Conditions(text.to(self.device), mask.to(self.device), latents[:0], pooled)
        packed = Conditions.cat([self._texts[key] for key in keys])
        while len(self._texts) > CACHE_ITEMS:
            self._texts.pop(next(iter(self._texts)))
        return evolve(packed, source=latents)

    def latents(self, names: Sequence[str]) -> torch.Tensor:
        """Latents [B, C, h, w] of pictures by name."""
        missing = [name for name in dict.fromkeys(names) if name not in self._sources]
        if missing:
            latents = self.backbone.encode_images(self.images(missing)).to(self.device)
            self._sources |= zip(missing, latents, strict=True)
        found = torch.stack([self._sources[name] for name in names])
        while len(self._sources) > CACHE_ITEMS:
            self._sources.pop(next(iter(self._sources)))
        return found

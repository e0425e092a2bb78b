"""A plan in memory: the frozen base with its adapters, and every condition encoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attrs import evolve

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.adapters.eager import eager_lora_linear
from clora.adapters.evaluator import Evaluator
from clora.errors import CloraError
from clora.lora_files.reader import read_lora
from clora.values import Conditions

if TYPE_CHECKING:
    from pathlib import Path

    from clora.plan import Plan

#: how many (prompt, picture) texts and how many pictures are kept encoded; beyond it the oldest are encoded again
CACHE_ITEMS = 50_000


def device_of(wanted: str) -> torch.device:
    """The device that a recipe's `device:` means to this process: each rank takes the GPU of its own number.

    Raises CloraError where `cuda` is asked for and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise CloraError("device: cuda was asked for, but torch sees no CUDA GPU here; write `device: auto` or `cpu`")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


class World:
    """The loaded backbone with the teachers of a plan on it, and caches of encoded words and pictures."""

    def __init__(self, plan: Plan) -> None:
        recipe = plan.recipe
        self.plan = plan
        self.dataset = recipe.dataset
        self.device = device_of(recipe.device)
        self.backbone = recipe.backbone.load()
        self.backbone.network.to(self.device)
        self.shapes = recipe.backbone.shapes()
        kernel = eager_lora_linear if recipe.kernels is None else recipe.kernels
        self.adapted = AdaptedNetwork(self.backbone.network, tuple(self.shapes), kernel)
        self.evaluator = Evaluator(self.backbone, self.adapted, pack=recipe.train.pack)
        self.pictures: dict[str, torch.Tensor] = {}  # given by hand, beside the dataset's own
        self._texts: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]] = {}
        self._sources: dict[str, torch.Tensor] = {}
        self.latent_shape = self._a_latent().shape

    def _a_latent(self) -> torch.Tensor:
        item = self.dataset.general("train")[0]
        return self._encoded_sources([item.source])[0]

    def load_teachers(self) -> None:
        """Put every effect's LoRA on the base under the effect's name."""
        for card in self.plan.cards:
            if card.name not in self.adapted.adapters:
                self.adapted.add(card.name, read_adapter(self, card.lora, card.scale))

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
        if missing:
            images = self.images([source for _, source in missing])
            text, mask = self.backbone.encode_prompts([prompt for prompt, _ in missing], images)
            for i, key in enumerate(missing):
                length = int(mask[i].sum())
                self._texts[key] = (text[i, :length].to(self.device), mask[i, :length].to(self.device))
        latents = self._encoded_sources(sources)
        texts = [self._texts[key] for key in keys]
        parts = [Conditions(text[None], mask[None], latents[i : i + 1]) for i, (text, mask) in enumerate(texts)]
        packed = Conditions.cat(parts)
        while len(self._texts) > CACHE_ITEMS:
            self._texts.pop(next(iter(self._texts)))
        return evolve(packed, source=latents)

    def _encoded_sources(self, names: Sequence[str]) -> torch.Tensor:
        """Latents [B, C, h, w] of pictures by name."""
        missing = [name for name in dict.fromkeys(names) if name not in self._sources]
        if missing:
            latents = self.backbone.encode_images(self.images(missing)).to(self.device)
            self._sources |= zip(missing, latents, strict=True)
        found = torch.stack([self._sources[name] for name in names])
        while len(self._sources) > CACHE_ITEMS:
            self._sources.pop(next(iter(self._sources)))
        return found

    def latents_like(self, rows: int) -> torch.Tensor:
        """An empty float32 latent batch [rows, C, h, w], for samplers to take shape and device from."""
        return torch.empty(rows, *self.latent_shape, device=self.device)


def read_adapter(world: World, path: Path, scale: float = 1.0) -> Adapter:
    """A LoRA file as an adapter of the world's base. Raises LoraFileError where it does not fit."""
    deltas = read_lora(path, world.shapes).deltas
    adapter = Adapter.of({name: (delta.a, delta.b, delta.scale * scale) for name, delta in deltas.items()})
    return adapter.to(world.device)

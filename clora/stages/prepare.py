"""Prepare: every teacher's own output for its training pictures (the y of TA-FM and TS-DMD), made once and kept.

The outputs lie in a cache beside the runs, under the hash of all that decides them, so that runs which differ only in
method share them. One file an effect: a killed prepare goes on with the effect it was at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clora.files import write_atomic_with
from clora.runs import RunFolder, digest_file, digest_of, digest_tensor
from clora.seeding import Draws
from clora.serving import Server
from clora.training.batches import Targets

if TYPE_CHECKING:
    from clora.plan import Plan
    from clora.values import EffectCard
    from clora.world import World


def prepare(plan: Plan, world: World, folder: RunFolder, tell: Callable[[str], None]) -> Targets:
    """The targets of all effects, from the cache where they are there, else sampled from the teachers."""
    names: dict[str, tuple[str, ...]] = {}
    latents: dict[str, torch.Tensor] = {}
    for i, card in enumerate(plan.cards):
        sources = tuple(plan.recipe.dataset.sources(card.name, "train"))
        path = folder.cache / "targets" / f"{card.name}-{_digest(plan, card, sources)}.safetensors"
        kept = _load(path) if path.exists() else None
        if kept is None or kept.shape[0] != len(sources):
            tell(f"prepare {i + 1}/{len(plan.cards)}: {card.name}, {len(sources)} teacher outputs")
            # the seed is fixed: runs that differ in their own seed share the teachers' outputs
            draws = Draws(0).named("targets").named(card.name)
            prompts = [card.teacher_prompt] * len(sources)
            made = Server(plan, world).teacher_latents(card.name, prompts, sources, draws).contiguous()
            write_atomic_with(path, lambda temporary, made=made: save_file({"latents": made}, temporary))
            kept = made
        names[card.name], latents[card.name] = sources, kept
    return Targets(names, latents)


def _load(path) -> torch.Tensor | None:
    """The kept outputs, or None where the file is damaged and must be made again."""
    try:
        return load_file(path)["latents"]
    except (SafetensorError, KeyError, OSError):
        return None


def _digest(plan: Plan, card: EffectCard, sources: tuple[str, ...]) -> str:
    return digest_of(
        {
            "backbone": plan.recipe.backbone.digest(),
            "lora": digest_file(card.lora),
            "scale": card.scale,
            "prompt": card.teacher_prompt,
            "teacher": plan.recipe.teacher.sampling(),
            "sources": sources,
            # the pictures themselves: a file replaced under the same name must not keep its old targets
            "pictures": digest_tensor(plan.recipe.dataset.images(sources)),
        }
    )

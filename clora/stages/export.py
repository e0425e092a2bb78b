"""Export: the trained student (or the merged bank) as a bundle that carries all it takes to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from clora.adapters.adapter import Adapter
from clora.bundle.bundle import add_pictures, write_bundle
from clora.lora_files.reader import LoraDelta
from clora.merging import merge
from clora.runs import RunFolder
from clora.world import read_adapter

if TYPE_CHECKING:
    from clora.plan import Plan
    from clora.world import World


def export(plan: Plan, world: World, folder: RunFolder, student: Adapter | None) -> None:
    """Write the bundle; with `serve.adapter: teachers` there is nothing to write.

    Raises CloraError where the folder cannot be written.
    """
    adapter = student
    if plan.recipe.serve.adapter == "merge":
        teachers = [read_adapter(world, card.lora, card.scale, card.strength) for card in plan.cards]
        adapter = merge(teachers, world.shapes, plan.recipe.serve.merge, plan.recipe.seed)
    if adapter is None:
        return
    deltas = {name: LoraDelta(a.detach(), b.detach(), scale) for name, (a, b, scale) in adapter.factors.items()}
    write_bundle(plan, folder.lora.parent, deltas, getattr(torch, plan.recipe.export.dtype))


def illustrate(plan: Plan, folder: RunFolder) -> None:
    """Add to the bundle what the evaluation made: sample pictures and numbers."""
    if folder.lora.exists():
        add_pictures(plan, folder.lora.parent, load_file(folder.pictures), folder.read_results())

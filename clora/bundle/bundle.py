"""Writes the bundle: weights in two layouts, the sampler, the card, a workflow; pictures once there are some."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clora.bundle import names
from clora.bundle.card import card
from clora.bundle.grid import grid, png, strips
from clora.bundle.metadata import metadata
from clora.bundle.scheduler import scheduler_config
from clora.files import write_atomic
from clora.lora_files.writer import Layout, write_lora
from clora.protocols import Publication, Publishes

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from clora.lora_files.reader import LoraDelta
    from clora.plan import Plan

FILES: Mapping[Layout, str] = {"diffusers": names.WEIGHTS, "comfyui": names.COMFYUI}


def publication_of(plan: Plan) -> Publication | None:
    """What the plan's backbone says of itself, None where it says nothing."""
    backbone = plan.recipe.backbone
    return backbone.publication() if isinstance(backbone, Publishes) else None


def write_bundle(plan: Plan, out: Path, deltas: Mapping[str, LoraDelta], dtype: torch.dtype | None = None) -> None:
    """Write everything but the pictures into `out`. Raises CloraError where the folder cannot be written."""
    publication = publication_of(plan)
    header = metadata(plan, publication)
    for layout, name in FILES.items():
        write_lora(out / name, deltas, header, layout=layout, dtype=dtype)
    if plan.recipe.serve.sampler == "few_step":
        write_atomic(out / names.SCHEDULER, _json(scheduler_config(plan.recipe.student.shift)))
    if publication is not None and publication.workflow is not None:
        prompt = next(iter(plan.prompts.values())).student
        student = plan.recipe.student
        write_atomic(
            out / names.WORKFLOW, _json(publication.workflow(names.COMFYUI, prompt, student.steps, student.shift))
        )
    write_atomic(out / names.CARD, card(plan, publication, None))


def add_pictures(plan: Plan, out: Path, pictures: Mapping[str, torch.Tensor], results: Mapping[str, Any]) -> None:
    """Add the sample grid, a picture for every effect, and the card with the evaluation's numbers."""
    found = strips([effect.name for effect in plan.cards], pictures)
    for effect, strip in found.items():
        write_atomic(out / names.EFFECT_PICTURES / f"{effect}.png", png(strip))
    write_atomic(out / names.GRID, png(grid(found)))
    write_atomic(out / names.CARD, card(plan, publication_of(plan), results))


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"

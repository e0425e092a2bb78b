"""Writes the bundle: weights in two layouts, the sampler, the card, a workflow; pictures once there are some."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from clora.bundle import names
from clora.bundle.card import card
from clora.bundle.grid import grid, png, strips
from clora.bundle.metadata import metadata
from clora.bundle.scheduler import scheduler_config
from clora.contracts.backbone import Publication, Publishes
from clora.files.atomic import write_atomic
from clora.lora_io.writer import Layout, write_lora
from clora.planning.shift import student_shift

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from clora.lora_io.reader import LoraDelta
    from clora.planning.plan import Plan
    from clora.runs.files.results import Results

FILES: Mapping[Layout, str] = {"diffusers": names.WEIGHTS, "comfyui": names.COMFYUI}


def publication_of(plan: Plan) -> Publication | None:
    """What the plan's backbone says of itself, None where it says nothing."""
    backbone = plan.recipe.backbone
    return backbone.publication() if isinstance(backbone, Publishes) else None


def write_bundle(
    plan: Plan,
    out: Path,
    deltas: Mapping[str, LoraDelta],
    dtype: torch.dtype | None = None,
    only: Container[Path] | None = None,
) -> tuple[Path, ...]:
    """Write everything but the pictures into `out`, or `only` some of it, and return all its files.

    Raises CloraError where the folder cannot be written.
    """
    publication = publication_of(plan)
    header = metadata(plan, publication)
    written: list[Path] = []

    def put(name: str, write: Callable[[Path], None]) -> None:
        written.append(out / name)
        if only is None or out / name in only:
            write(out / name)

    for layout, name in FILES.items():
        put(name, partial(write_lora, deltas=deltas, metadata=header, layout=layout, dtype=dtype))
    steps, shift = plan.recipe.student.steps, student_shift(plan.recipe)
    if plan.recipe.serve.sampler == "few_step":
        put(names.SCHEDULER, lambda path: write_atomic(path, _json(scheduler_config(shift))))
    if publication is not None and publication.workflow is not None:
        prompt = next(iter(plan.prompts.values())).student
        workflow = publication.workflow(names.COMFYUI, prompt, steps, shift)
        put(names.WORKFLOW, lambda path: write_atomic(path, _json(workflow)))
    put(names.CARD, lambda path: write_atomic(path, card(plan, publication, None)))
    return tuple(written)


def add_pictures(plan: Plan, out: Path, pictures: Mapping[str, torch.Tensor], results: Results) -> tuple[Path, ...]:
    """Add the sample grid, a picture for every effect, and the card with the evaluation's numbers; returns the files.

    Raises CloraError where the folder cannot be written.
    """
    found = strips([effect.name for effect in plan.cards], pictures)
    made = {out / names.EFFECT_PICTURES / f"{effect}.png": strip for effect, strip in found.items()}
    made[out / names.GRID] = grid(found)
    for path, picture in made.items():
        write_atomic(path, png(picture))
    write_atomic(out / names.CARD, card(plan, publication_of(plan), results))
    return (*made, out / names.CARD)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"

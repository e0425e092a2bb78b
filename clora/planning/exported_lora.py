"""What exporters and the LoRA's own header say of a run: its effects with their words, and how to sample it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from clora.contracts.backbone import Publication, Publishes
from clora.contracts.export import ExportedEffect, ExportedLora, ExportedSampler
from clora.diffusion.flow import Schedule
from clora.lora_io.reader import LoraDelta, read_lora
from clora.planning.shift import few_steps

if TYPE_CHECKING:
    from clora.config.schema import Recipe
    from clora.contracts.backbone import Backbone
    from clora.contracts.values import EffectCard, Prompts


def exported_lora(
    recipe: Recipe, digest: str, cards: Sequence[EffectCard], prompts: Mapping[str, Prompts], path: Path
) -> ExportedLora:
    """What is known of the LoRA that a run writes at `path`, before and after it does."""
    publication = publication_of(recipe.backbone)
    effects = tuple(ExportedEffect(c.name, _served(recipe, prompts[c.name]), c.caption) for c in cards)
    title, sampler = recipe.title or recipe.name, _sampler(recipe)
    return ExportedLora(
        path=path,
        title=title,
        digest=digest,
        effects=effects,
        sampler=sampler,
        rank=recipe.student.rank if recipe.serve.adapter == "student" else None,
        publication=publication,
        header=header(title, digest, effects, sampler, publication),
        weights=partial(_weights, recipe.backbone, path),
    )


def publication_of(backbone: Backbone) -> Publication | None:
    """What a backbone says of itself; None where it says nothing."""
    return backbone.publication() if isinstance(backbone, Publishes) else None


def header(
    title: str,
    digest: str,
    effects: Sequence[ExportedEffect],
    sampler: ExportedSampler,
    publication: Publication | None,
) -> dict[str, str]:
    """The metadata of the LoRA's file: ModelSpec's keys, and under `clora` how to sample and to call each effect."""
    fresh = sampler.kind == "few_step"
    how = {
        "base_model": None if publication is None else publication.base_model,
        "effects": {effect.name: {"prompt": effect.prompt, "caption": effect.caption} for effect in effects},
        "steps": sampler.steps,
        "shift": sampler.shift,
        "sigmas": list(sampler.sigmas),
        "sampler": "predict x0, re-noise with fresh noise to the next sigma" if fresh else "Euler",
        "guidance_scale": sampler.guidance_scale,
        "recipe_digest": digest,
        "versions": {name: version(name) for name in ("clora", "torch", "diffusers", "peft")},
    }
    shift = "the scheduler's own levels" if sampler.shift is None else f"shift {sampler.shift:.4g}"
    kind = "stochastic re-noising" if fresh else "Euler"
    spec = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": title,
        "modelspec.trigger_phrase": "; ".join(effect.prompt for effect in effects),
        "modelspec.usage_hint": f"{sampler.steps} steps, guidance {sampler.guidance_scale:g}, {kind}, {shift}",
        "clora": json.dumps(how),
    }
    if publication is not None:
        spec["modelspec.architecture"] = f"{publication.architecture}/lora"
    return spec


def _served(recipe: Recipe, prompts: Prompts) -> str:
    return prompts.student if recipe.serve.prompts == "student" else prompts.teacher


def _sampler(recipe: Recipe) -> ExportedSampler:
    if recipe.serve.sampler == "few_step":
        schedule = few_steps(recipe)
        return ExportedSampler("few_step", len(schedule), 1.0, schedule.shift, schedule.sigmas)
    teacher = recipe.teacher
    sigmas = () if teacher.shift is None else Schedule.shifted(teacher.steps, teacher.shift).sigmas
    return ExportedSampler("teacher", teacher.steps, teacher.guidance_scale, teacher.shift, sigmas)


def _weights(backbone: Backbone, path: Path) -> Mapping[str, LoraDelta]:
    return read_lora(path, backbone.shapes()).deltas

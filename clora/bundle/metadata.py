"""What the LoRA's header says: ModelSpec for people's tools, and under `clora` how to sample and call each effect."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from clora.contracts.backbone import Publication
from clora.planning.shift import few_steps

if TYPE_CHECKING:
    from clora.planning.plan import Plan


def metadata(plan: Plan, publication: Publication | None) -> dict[str, str]:
    """The header's metadata, all texts."""
    student, schedule = plan.recipe.student, few_steps(plan.recipe)
    effects: dict[str, Any] = {
        card.name: {"prompt": plan.prompts[card.name].student, "caption": card.caption} for card in plan.cards
    }
    how = {
        "base_model": None if publication is None else publication.base_model,
        "effects": effects,
        "steps": student.steps,
        "shift": schedule.shift,
        "sigmas": list(schedule.sigmas),
        "sampler": "predict x0, re-noise with fresh noise to the next sigma",
        "guidance_scale": 1.0,
        "recipe_digest": plan.digest,
        "versions": {name: version(name) for name in ("clora", "torch", "diffusers", "peft")},
    }
    spec = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": plan.recipe.title or plan.recipe.name,
        "modelspec.trigger_phrase": "; ".join(plan.prompts[card.name].student for card in plan.cards),
        "modelspec.usage_hint": f"{student.steps} steps, guidance 1, stochastic re-noising, shift {schedule.shift:.4g}",
        "clora": json.dumps(how),
    }
    if publication is not None:
        spec["modelspec.architecture"] = f"{publication.architecture}/lora"
    return spec

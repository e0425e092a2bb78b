"""Export: the trained student (or the merged bank) as one safetensors file that carries all it takes to use it."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from clora.adapters.adapter import Adapter
from clora.flow import Schedule
from clora.lora_files.reader import LoraDelta
from clora.lora_files.writer import write_lora
from clora.merging import merge
from clora.runs import RunFolder
from clora.world import read_adapter

if TYPE_CHECKING:
    from clora.plan import Plan
    from clora.world import World


def export(plan: Plan, world: World, folder: RunFolder, student: Adapter | None) -> None:
    """Write the LoRA in diffusers' layout; with `serve.adapter: teachers` there is nothing to write.

    Raises CloraError where the folder cannot be written.
    """
    adapter = student
    if plan.recipe.serve.adapter == "merge":
        teachers = [read_adapter(world, card.lora, card.scale) for card in plan.cards]
        adapter = merge(teachers, world.shapes, plan.recipe.serve.merge, plan.recipe.seed)
    if adapter is None:
        return
    deltas = {name: LoraDelta(a.detach(), b.detach(), scale) for name, (a, b, scale) in adapter.factors.items()}
    write_lora(folder.lora, deltas, metadata(plan))


def metadata(plan: Plan) -> dict[str, str]:
    """The header's metadata: ModelSpec, and under `clora` how to sample and what each effect is called by."""
    student = plan.recipe.student
    effects: dict[str, Any] = {
        card.name: {"prompt": plan.prompts[card.name].student, "caption": card.caption} for card in plan.cards
    }
    how = {
        "effects": effects,
        "steps": student.steps,
        "shift": student.shift,
        "sigmas": list(Schedule.shifted(student.steps, student.shift).sigmas),
        "sampler": "predict x0, re-noise with fresh noise to the next sigma",
        "guidance_scale": 1.0,
        "recipe_digest": plan.digest,
        "versions": {name: version(name) for name in ("clora", "torch", "diffusers", "peft")},
    }
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": plan.recipe.title or plan.recipe.name,
        "modelspec.trigger_phrase": "; ".join(plan.prompts[card.name].student for card in plan.cards),
        "modelspec.usage_hint": f"{student.steps} steps, guidance 1, stochastic re-noising, shift {student.shift}",
        "clora": json.dumps(how),
    }

"""The model card: what the LoRA does, the words that call each effect, and code that runs as it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .names import COMFYUI, EFFECT_PICTURES, GRID, SCHEDULER, WEIGHTS, WORKFLOW

if TYPE_CHECKING:
    from clora.api import Evaluated, ExportedLora, Publication

_SCHEDULER = "FlowMatchEulerDiscreteScheduler"


def workflow_of(lora: ExportedLora) -> Mapping[str, Any] | None:
    """The base's ComfyUI workflow with the LoRA's few steps in it; None where the base has none, or they are many."""
    make = None if lora.publication is None else lora.publication.workflows.get("comfyui")
    if make is None or lora.sampler.kind != "few_step" or lora.sampler.shift is None:
        return None
    return make(COMFYUI, lora.effects[0].prompt, lora.sampler.steps, lora.sampler.shift)


def card(lora: ExportedLora, evaluated: Evaluated | None, *, comfyui: bool) -> str:
    """The README.md beside the LoRA; `evaluated` are the evaluation's numbers and pictures, once there are some."""
    parts = [_front(lora, evaluated), f"# {lora.title}\n\n{_summary(lora)}"]
    if evaluated is not None and evaluated.samples:
        parts.append(f"![every effect: source and result]({GRID})")
    parts += [_effects(lora), _files(lora, comfyui=comfyui)]
    if lora.publication is not None and lora.publication.pipeline:
        parts.append(_code(lora, lora.publication))
    if evaluated is not None and evaluated.measured.values:
        parts.append(_numbers(evaluated.measured.values))
    parts.append(
        f"Made by clora after CollectionLoRA (arXiv 2605.25378); recipe digest `{lora.digest}`. The effects' own "
        "LoRAs and the base keep their licences."
    )
    return "\n\n".join(parts) + "\n"


def _summary(lora: ExportedLora) -> str:
    sampler, rank = lora.sampler, "" if lora.rank is None else f" of rank {lora.rank}"
    if sampler.kind == "few_step":
        return (
            f"{len(lora.effects)} effects and few-step sampling in one LoRA{rank}: {sampler.steps} steps, no guidance, "
            "fresh noise between the steps."
        )
    return f"{len(lora.effects)} effects in one LoRA{rank}: {sampler.steps} steps, guidance {sampler.guidance_scale:g}."


def _front(lora: ExportedLora, evaluated: Evaluated | None) -> str:
    """The YAML block that model hubs read; JSON strings are YAML strings, whatever a prompt holds."""
    lines = ["---"]
    if lora.publication is not None:
        lines += [f"base_model: {json.dumps(lora.publication.base_model)}", "base_model_relation: adapter"]
    lines += ["library_name: diffusers", "pipeline_tag: image-to-image"]
    lines += ["tags:", "- lora", "- diffusers", "- image-to-image"]
    lines += [*(["- few-step"] if lora.sampler.kind == "few_step" else []), "- clora"]
    lines.append("widget:")
    for effect in lora.effects:
        lines.append(f"- text: {json.dumps(effect.prompt, ensure_ascii=False)}")
        if evaluated is not None and effect.name in evaluated.samples:
            lines += ["  output:", f"    url: {EFFECT_PICTURES}/{effect.name}.png"]
    return "\n".join([*lines, "---"])


def _effects(lora: ExportedLora) -> str:
    rows = [f"| {effect.name} | `{_cell(effect.prompt)}` |" for effect in lora.effects]
    return "\n".join(["## Effects", "", "| effect | prompt, to be typed as it stands |", "| --- | --- |", *rows])


def _cell(text: str) -> str:
    """A prompt inside a table's code cell: on one line, with nothing that ends the cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


def _files(lora: ExportedLora, *, comfyui: bool) -> str:
    rows = [f"| `{WEIGHTS}` | diffusers' names; alpha equals rank, so no reader gets the strength wrong |"]
    if comfyui:
        rows.append(f"| `{COMFYUI}` | the same for ComfyUI |")
    if lora.sampler.kind == "few_step":
        rows.append(f"| `{SCHEDULER}` | the sampler, as diffusers' {_SCHEDULER} |")
    if comfyui and workflow_of(lora) is not None:
        rows.append(f"| `{WORKFLOW}` | a ComfyUI workflow in the API format |")
    return "\n".join(["## Files", "", "| file | what |", "| --- | --- |", *rows])


def _code(lora: ExportedLora, publication: Publication) -> str:
    few = lora.sampler.kind == "few_step"
    source = "\n".join(['source = load_image("source.png")', *publication.sizing])
    arguments = {
        "image": "source",
        "prompt": "prompt",
        "num_inference_steps": str(lora.sampler.steps),
        **{key: repr(value) for key, value in publication.call.items() if few},
        **publication.call_sizes,
    }
    call = "\n".join(f"    {key}={value}," for key, value in arguments.items())
    scheduler = f'pipe.scheduler = {_SCHEDULER}.from_pretrained(bundle, subfolder="scheduler")\n' if few else ""
    classes = f"{_SCHEDULER}, {publication.pipeline}" if few else publication.pipeline
    return f"""## In diffusers

```python
import torch
from diffusers import {classes}
from diffusers.utils import load_image

bundle = "."  # this folder, or its name on a hub
pipe = {publication.pipeline}.from_pretrained({publication.base_model!r}, torch_dtype=torch.bfloat16)
{scheduler}pipe.load_lora_weights(bundle, weight_name="{WEIGHTS}")
{source}
prompt = {lora.effects[0].prompt!r}
picture = pipe(
{call}
).images[0]
picture.save("edited.png")
```"""


def _numbers(values: Mapping[str, float]) -> str:
    rows = [f"| {name} | {value:.4g} |" for name, value in values.items()]
    return "\n".join(["## Measured on test pictures", "", "| metric | value |", "| --- | ---: |", *rows])

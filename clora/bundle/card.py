"""The model card: what the LoRA does, the words that call each effect, and code that runs as it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clora.bundle.names import COMFYUI, EFFECT_PICTURES, GRID, SCHEDULER, WEIGHTS, WORKFLOW
from clora.contracts.backbone import Publication

if TYPE_CHECKING:
    from clora.planning.plan import Plan
    from clora.runs.files.results import Results


def card(plan: Plan, publication: Publication | None, results: Results | None) -> str:
    """The README.md beside the LoRA; `results` are the evaluation's numbers, once there are some."""
    title = plan.recipe.title or plan.recipe.name
    student = plan.recipe.student
    parts = [
        _front(plan, publication, pictures=results is not None),
        f"# {title}\n\n{len(plan.prompts)} effects and few-step sampling in one LoRA of rank {student.rank}: "
        f"{student.steps} steps, no guidance, fresh noise between the steps.",
    ]
    if results is not None:
        parts.append(f"![every effect: source and result]({GRID})")
    parts += [_effects(plan), _files(publication)]
    if publication is not None and publication.pipeline:
        parts.append(_code(plan, publication))
    if results is not None and results.values:
        parts.append(_numbers(results.values))
    parts.append(
        f"Made by clora after CollectionLoRA (arXiv 2605.25378); recipe digest `{plan.digest}`. The effects' own "
        "LoRAs and the base keep their licences."
    )
    return "\n\n".join(parts) + "\n"


def _front(plan: Plan, publication: Publication | None, *, pictures: bool) -> str:
    """The YAML block that model hubs read; JSON strings are YAML strings, whatever a prompt holds."""
    lines = ["---"]
    if publication is not None:
        lines += [f"base_model: {json.dumps(publication.base_model)}", "base_model_relation: adapter"]
    lines += ["library_name: diffusers", "pipeline_tag: image-to-image"]
    lines += ["tags:", "- lora", "- diffusers", "- image-to-image", "- few-step", "- clora"]
    lines.append("widget:")
    for name, prompts in plan.prompts.items():
        lines.append(f"- text: {json.dumps(prompts.student, ensure_ascii=False)}")
        if pictures:
            lines += ["  output:", f"    url: {EFFECT_PICTURES}/{name}.png"]
    return "\n".join([*lines, "---"])


def _effects(plan: Plan) -> str:
    rows = [f"| {name} | `{_cell(prompts.student)}` |" for name, prompts in plan.prompts.items()]
    return "\n".join(["## Effects", "", "| effect | prompt, to be typed as it stands |", "| --- | --- |", *rows])


def _cell(text: str) -> str:
    """A prompt inside a table's code cell: on one line, with nothing that ends the cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


def _files(publication: Publication | None) -> str:
    rows = [
        f"| `{WEIGHTS}` | diffusers' names; alpha equals rank, so no reader gets the strength wrong |",
        f"| `{COMFYUI}` | the same for ComfyUI |",
        f"| `{SCHEDULER}` | the sampler, as diffusers' FlowMatchEulerDiscreteScheduler |",
    ]
    if publication is not None and publication.workflow is not None:
        rows.append(f"| `{WORKFLOW}` | a ComfyUI workflow in the API format |")
    return "\n".join(["## Files", "", "| file | what |", "| --- | --- |", *rows])


def _code(plan: Plan, publication: Publication) -> str:
    first = next(iter(plan.prompts.values())).student
    source = "\n".join(['source = load_image("source.png")', *publication.sizing])
    arguments = {
        "image": "source",
        "prompt": "prompt",
        "num_inference_steps": str(plan.recipe.student.steps),
        **{key: repr(value) for key, value in publication.call.items()},
        **publication.call_sizes,
    }
    call = "\n".join(f"    {key}={value}," for key, value in arguments.items())
    return f"""## In diffusers

```python
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, {publication.pipeline}
from diffusers.utils import load_image

bundle = "."  # this folder, or its name on a hub
pipe = {publication.pipeline}.from_pretrained({publication.base_model!r}, torch_dtype=torch.bfloat16)
pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(bundle, subfolder="scheduler")
pipe.load_lora_weights(bundle, weight_name="{WEIGHTS}")
{source}
prompt = {first!r}
picture = pipe(
{call}
).images[0]
picture.save("edited.png")
```"""


def _numbers(values: Mapping[str, float]) -> str:
    rows = [f"| {name} | {value:.4g} |" for name, value in values.items()]
    return "\n".join(["## Measured on test pictures", "", "| metric | value |", "| --- | ---: |", *rows])

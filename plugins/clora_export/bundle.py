"""The exporter `bundle`: one folder that a model hub, diffusers and ComfyUI take as it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from clora.api import between, write_lora

from . import names
from .card import card, workflow_of
from .scheduler import scheduler_config

if TYPE_CHECKING:
    from clora.api import Evaluated, ExportedLora, FileContents


@frozen
class Bundle:
    """Makes the export a folder to publish.

    Beside the LoRA: a copy in ComfyUI's names, the few-step sampler as a configuration of diffusers' scheduler, a
    workflow for ComfyUI where the base has one, and a model card with code that runs. The evaluation adds its numbers
    to the card, a strip of pictures for each effect and a grid of all of them.
    """

    comfyui: bool = True  # also write the LoRA in ComfyUI's names, and the workflow where the base has one
    pictures: int = field(default=4, validator=between(1, 100))  # of each effect, sources above results; 1 to 100
    side: int = field(default=256, validator=between(16, 2048))  # pixels of a picture's longer side; 16 to 2048

    def export(self, lora: ExportedLora) -> Mapping[str, FileContents]:
        """The copy, the sampler, the workflow, and the card without pictures."""
        files: dict[str, FileContents] = {}
        if self.comfyui:
            files[names.COMFYUI] = partial(_copy, lora)
        if lora.sampler.kind == "few_step" and lora.sampler.shift is not None:
            files[names.SCHEDULER] = _json(scheduler_config(lora.sampler.shift))
        workflow = workflow_of(lora) if self.comfyui else None
        if workflow is not None:
            files[names.WORKFLOW] = _json(workflow)
        files[names.CARD] = card(lora, None, comfyui=self.comfyui)
        return files

    def illustrate(self, lora: ExportedLora, evaluated: Evaluated) -> Mapping[str, FileContents]:
        """The strips, the grid, and the card with pictures and numbers."""
        from .grid import grid, png, strips

        made = strips(evaluated.samples, self.pictures, self.side)
        files: dict[str, FileContents] = {
            f"{names.EFFECT_PICTURES}/{effect}.png": png(strip) for effect, strip in made.items()
        }
        if made:
            files[names.GRID] = png(grid(made))
        files[names.CARD] = card(lora, evaluated, comfyui=self.comfyui)
        return files


def _copy(lora: ExportedLora, path: Path) -> None:
    """The LoRA in ComfyUI's names, number for number."""
    write_lora(path, lora.weights(), lora.header, layout="comfyui")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"

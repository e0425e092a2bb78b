"""A bank of tiny LoRAs as another program lists them, each with a before/after pair and none with a caption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from clora_emoji.backbone import EmojiBackbone
from PIL import Image

from clora.lora_io.reader import LoraDelta
from clora.lora_io.writer import write_lora

RECIPES = Path(__file__).parents[1] / "recipes"


def write_bank(folder: Path, effects: Sequence[str]) -> None:
    """`bank/bank.jsonl`, its pictures beside it, and the LoRAs in `loras`."""
    (folder / "bank").mkdir()
    rows = []
    for number, effect in enumerate(effects):
        deltas = {
            name: LoraDelta(torch.full((1, inputs), 0.01), torch.full((outputs, 1), 0.01), 1.0)
            for name, (inputs, outputs) in EmojiBackbone().shapes().items()
        }
        write_lora(folder / f"loras/{effect}.safetensors", deltas)
        for end in ("before", "after"):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"bank/{effect}_{end}.png")
        pair = [f"{effect}_before.png", f"{effect}_after.png"]
        lora = f"{effect}.safetensors"
        rows.append({"id": effect, "effect_prompt": f"make it {effect}", "lora_path": lora, "pairs": [pair]})
    (folder / "bank/bank.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_recipe(file: Path, url: str, key_from: str | None = None) -> None:
    """A recipe whose captioner is the server at `url`."""
    file.write_text(
        f"extends: {RECIPES / 'collection.yaml'}\n"
        "teachers: {use: bank, manifest: bank/bank.jsonl, lora_folder: loras, captions: captions.yaml}\n"
        f"captioner: {{use: openai, model: some-vl, url: '{url}', key_from: {key_from or 'null'}}}\n"
    )

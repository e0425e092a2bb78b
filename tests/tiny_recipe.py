"""A recipe on a tiny model of a large family: two random teachers, a few random pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from clora.lora_io.reader import LoraDelta
from clora.lora_io.writer import write_lora

RECIPES = Path(__file__).parents[1] / "recipes"


def tiny_recipe(folder: Path, backbone: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]]) -> Path:
    """Write teachers on the linears of `shapes`, pictures of 32 x 48 and a recipe into a folder; returns the recipe."""
    generator = torch.Generator().manual_seed(0)
    bank, rows = [], []
    for name in ("ink", "wool"):
        factors = {m: [torch.randn(2, n, generator=generator) for n in shape] for m, shape in shapes.items()}
        write_lora(folder / f"{name}.safetensors", {m: LoraDelta(a, b.T, 0.02) for m, (a, b) in factors.items()})
        bank.append(
            {"name": name, "lora": f"{name}.safetensors", "teacher_prompt": "turn it", "caption": f"all {name}"}
        )
        rows += [{"source": f"{i}.png", "effect": name, "split": ("train", "test")[i]} for i in range(2)]
    for i in range(2):
        pixels = torch.randint(0, 256, (32, 48, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    (folder / "effects.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain = [{"source": f"{i}.png", "instruction": "make it", "split": ("train", "test")[i]} for i in range(2)]
    (folder / "general.jsonl").write_text("\n".join(map(json.dumps, plain)))
    tree = {
        "extends": str(RECIPES / "collection.yaml"),
        "backbone": dict(backbone),
        "dataset": {"use": "jsonl", "effects": "effects.jsonl", "general": "general.jsonl", "size": [32, 48]},
        "teachers": {"use": "bank", "manifest": "bank.yaml"},
        "metrics": None,
        "device": "cpu",
    }
    (folder / "bank.yaml").write_text(json.dumps(bank))
    (folder / "tiny.yaml").write_text(json.dumps(tree))
    return folder / "tiny.yaml"

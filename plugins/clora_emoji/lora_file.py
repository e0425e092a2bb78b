"""One LoRA file as diffusers writes it: named tensors, and rank, alpha and targets in the header."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

# The fourteen linear layers of a Qwen-Image block.
TARGETS = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
    "img_mlp.net.0.proj",
    "img_mlp.net.2",
    "txt_mlp.net.0.proj",
    "txt_mlp.net.2",
    "img_mod.1",
    "txt_mod.1",
)


def lora_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's LoRA weights under diffusers' names, ``transformer.<layer>.lora_A.weight`` and ``lora_B``."""
    return {
        "transformer." + name.replace(".default.weight", ".weight"): value.detach()
        for name, value in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def write(model: torch.nn.Module, path: Path, rank: int, alpha: int) -> None:
    """Write the model's LoRA weights in bfloat16, whole or not at all."""
    header = {"transformer.r": rank, "transformer.lora_alpha": alpha, "transformer.target_modules": list(TARGETS)}
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in lora_tensors(model).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    save_file(tensors, draft, {"format": "pt", "lora_adapter_metadata": json.dumps(header, sort_keys=True)})
    os.replace(draft, path)


def read(model: torch.nn.Module, path: Path) -> None:
    """Put a file's weights into the model's LoRA; raises KeyError where the file lacks one."""
    kept = load_file(path)
    for name, value in lora_tensors(model).items():
        value.copy_(kept[name])

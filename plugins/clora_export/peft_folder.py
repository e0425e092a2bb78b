"""The LoRA as a folder that `PeftModel.from_pretrained` takes: PEFT's names and its adapter_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clora.api import write_folder, write_lora

if TYPE_CHECKING:
    import torch

    from clora.api import LoraDelta


def write_peft(out: Path, deltas: Mapping[str, LoraDelta], dtype: torch.dtype | None = None) -> None:
    """Write adapter_model.safetensors and adapter_config.json into `out`, in one step."""

    def fill(folder: Path) -> None:
        write_lora(folder / "adapter_model.safetensors", deltas, layout="peft", dtype=dtype)
        (folder / "adapter_config.json").write_text(json.dumps(_config(deltas), indent=2) + "\n")

    write_folder(out, fill)


def _config(deltas: Mapping[str, LoraDelta]) -> dict[str, Any]:
    """PEFT's LoraConfig: the strength is in B, so every alpha is its rank."""
    ranks = {module: delta.a.shape[0] for module, delta in deltas.items()}
    rank = max(ranks.values())
    other = {f"^{module}": own for module, own in ranks.items() if own != rank}
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": sorted(deltas),
        "bias": "none",
        "inference_mode": True,
    }

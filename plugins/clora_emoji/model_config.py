"""What the emoji world's network is, known without loading it: its folder, its sizes, what its config.json may say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clora.api import config_fields

BASE = Path(__file__).parent / "assets" / "base"
CHANNELS = 48  # of a latent
GRID = 8  # latents are GRID x GRID tokens
CONFIG: MappingProxyType[str, Any] = MappingProxyType(
    {
        "patch_size": 1,
        "in_channels": 64,  # 48 of the picture, 16 of its place
        "out_channels": CHANNELS,
        "num_layers": 6,
        "num_attention_heads": 4,
        "attention_head_dim": 32,
        "joint_attention_dim": 128,
        "axes_dims_rope": (8, 12, 12),
    }
)
#: what the levels of this world's 64 tokens are shifted by: measured, and docs/science.md has the measurements. The
#: paper's 3 for 4,096 tokens moved as Stable Diffusion 3 does, with the square root, gives 0.375; 0.5 was worse than 1
SHIFT = 1.0

#: what config.json may say: `velocity` gives the network these channels and words, whatever its size
FIELDS: config_fields.Fields = {
    "_class_name": config_fields.OneOf(("QwenImageTransformer2DModel",)),
    **{
        name: config_fields.Whole(CONFIG[name], CONFIG[name])
        for name in ("patch_size", "in_channels", "out_channels", "joint_attention_dim")
    },
    "num_layers": config_fields.Whole(1, 256),
    "num_attention_heads": config_fields.Whole(1, 256),
    "attention_head_dim": config_fields.Whole(2, 1024),
    "axes_dims_rope": config_fields.Several(config_fields.Whole(2, 1024), 3, 3),
    **dict.fromkeys(
        ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope"), config_fields.Flag()
    ),
}


def misfits(config: Mapping[str, Any]) -> Iterator[str]:
    """Fields that are missing, that contradict one another, or are another model's, each as one sentence."""
    for name in CONFIG:
        if name not in config:
            yield f"{name} is missing"
            return
    heads, axes = config["attention_head_dim"], config["axes_dims_rope"]
    if sum(axes) != heads or any(axis % 2 for axis in axes):
        yield f"axes_dims_rope is {axes}; even numbers that add up to {heads} turn a head"
    for name in ("guidance_embeds", "use_additional_t_cond", "use_layer3d_rope"):
        if config.get(name):
            yield f"{name} is True, which the emoji world's network has not"

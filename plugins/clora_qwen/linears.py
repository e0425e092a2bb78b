"""The linears of Qwen-Image's transformer, from its config.json alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: what config.json may leave out, as QwenImageTransformer2DModel completes it
DEFAULTS: Mapping[str, int] = {
    "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 60, "attention_head_dim": 128,
    "num_attention_heads": 24, "joint_attention_dim": 3584,
}  # fmt: skip
#: beyond it a number in a config is a mistake, and would only fill the memory
LARGEST = 1 << 20

#: the linears of a block that carry adapters, with (inputs, outputs) in multiples of the model's width (paper, sec. 4)
TAILS: Mapping[str, tuple[int, int]] = {
    **{f"attn.{name}": (1, 1) for name in ("to_q", "to_k", "to_v", "to_out.0")},
    **{f"attn.{name}": (1, 1) for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")},
    **{f"{stream}_mlp.net.0.proj": (1, 4) for stream in ("img", "txt")},
    **{f"{stream}_mlp.net.2": (4, 1) for stream in ("img", "txt")},
    **{f"{stream}_mod.1": (1, 6) for stream in ("img", "txt")},
}
TIME_WIDTH = 256  # of the sinusoids that the noise level becomes


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what it leaves out."""
    given = {name: config[name] for name in DEFAULTS if config.get(name) is not None}
    return {**DEFAULTS, **given}


def misfits(config: Mapping[str, Any]) -> Iterable[str]:
    """Sizes that are none, each as `name is value`, and options of other models than the edit models."""
    for name, value in complete(config).items():
        if type(value) is not int or not 1 <= value <= LARGEST:
            yield f"{name} is {value!r}, which is no size"
    if config.get("patch_size", 2) != 2:
        yield f"patch_size is {config['patch_size']!r}; diffusers' pipelines pack 2 x 2 latents"
    for name in ("guidance_embeds", "use_additional_t_cond", "use_layer3d_rope"):
        if config.get(name):
            yield f"{name} is {config[name]!r}, which no Qwen-Image-Edit has"


def in_blocks(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(in, out) of the 14 linears of every block: where the student's adapter is."""
    sizes = complete(config)
    width = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    return {
        f"transformer_blocks.{block}.{tail}": (inputs * width, outputs * width)
        for block in range(sizes["num_layers"])
        for tail, (inputs, outputs) in TAILS.items()
    }


def around_blocks(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(in, out) of the linears before and after the blocks, which some teachers change too."""
    sizes = complete(config)
    width = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    return {
        "img_in": (sizes["in_channels"], width),
        "txt_in": (sizes["joint_attention_dim"], width),
        "time_text_embed.timestep_embedder.linear_1": (TIME_WIDTH, width),
        "time_text_embed.timestep_embedder.linear_2": (width, width),
        "norm_out.linear": (width, 2 * width),
        "proj_out": (width, sizes["patch_size"] ** 2 * sizes["out_channels"]),
    }

"""The linears of Qwen-Image's transformer, from its config.json alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: what config.json may leave out, as QwenImageTransformer2DModel completes it
DEFAULTS: Mapping[str, int] = {
    "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 60, "attention_head_dim": 128,
    "num_attention_heads": 24, "joint_attention_dim": 3584,
}  # fmt: skip
#: of the axes of the rotary embedding
AXES = (16, 56, 56)
#: beyond it the width, heads times their dimension, is a mistake, and would only fill the memory
WIDEST = 1 << 16

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
    """Sizes that contradict one another, and options of other models than the edit models, each as one sentence."""
    sizes = complete(config)
    width = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    if width > WIDEST:
        yield f"num_attention_heads x attention_head_dim is {width}; at most {WIDEST} is built"
    axes = config.get("axes_dims_rope", AXES)
    if sum(axes) != sizes["attention_head_dim"] or any(axis % 2 for axis in axes):
        yield f"axes_dims_rope is {list(axes)}; even numbers that add up to {sizes['attention_head_dim']} turn a head"
    if sizes["patch_size"] != 2:
        yield f"patch_size is {sizes['patch_size']}; diffusers' pipelines pack 2 x 2 latents"
    elif 4 * sizes["out_channels"] != sizes["in_channels"]:
        yield f"out_channels is {sizes['out_channels']}, but in_channels is {sizes['in_channels']}, not 4 times that"
    for name in ("guidance_embeds", "use_additional_t_cond", "use_layer3d_rope"):
        if config.get(name):
            yield f"{name} is True, which no Qwen-Image-Edit has"


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

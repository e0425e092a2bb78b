"""The linears of diffusers' FluxTransformer2DModel, told from its config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clora.api import LinearRows, Linears

#: the linears of a double block, with (inputs, outputs) in multiples of the model's width
DOUBLE: Mapping[str, tuple[int, int]] = {
    **{f"attn.{name}": (1, 1) for name in ("to_q", "to_k", "to_v", "to_out.0")},
    **{f"attn.{name}": (1, 1) for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")},
    **{f"{stream}.net.0.proj": (1, 4) for stream in ("ff", "ff_context")},
    **{f"{stream}.net.2": (4, 1) for stream in ("ff", "ff_context")},
    **{f"{norm}.linear": (1, 6) for norm in ("norm1", "norm1_context")},
}
#: the same of a single block; its proj_out reads attention and MLP side by side
SINGLE: Mapping[str, tuple[int, int]] = {
    **{f"attn.{name}": (1, 1) for name in ("to_q", "to_k", "to_v")},
    "proj_mlp": (1, 4),
    "proj_out": (5, 1),
    "norm.linear": (1, 3),
}
#: how the model's original code calls the linears of a block, which files by kohya's and BFL's programs follow
DOUBLE_ORIGINALS: Mapping[str, Sequence[str]] = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
}
SINGLE_ORIGINALS: Mapping[str, Sequence[str]] = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
#: the same around the blocks
OUTER_ORIGINALS: Mapping[str, str] = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    **{
        f"{original}.{layer}": f"time_text_embed.{name}.linear_{number}"
        for original, name in (
            ("time_in", "timestep_embedder"),
            ("vector_in", "text_embedder"),
            ("guidance_in", "guidance_embedder"),
        )
        for layer, number in (("in_layer", 1), ("out_layer", 2))
    },
    "final_layer.linear": "proj_out",
}
#: what FluxTransformer2DModel takes where its config.json is silent
DEFAULTS: Mapping[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "out_channels": None,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": False,
}
#: of the axes of the rotary embedding
AXES = (16, 56, 56)
#: beyond it the width, heads times their dimension, is a mistake, and would only fill the memory
WIDEST = 1 << 16
TIMESTEP_CHANNELS = 256  # the sinusoids of a timestep, fixed in diffusers' code


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the configuration that decide the linears, with diffusers' own defaults."""
    return {name: config.get(name, default) for name, default in DEFAULTS.items()}


def misfits(config: Mapping[str, Any]) -> Iterator[str]:
    """Sizes that contradict one another, each as one sentence."""
    found = complete(config)
    width = found["num_attention_heads"] * found["attention_head_dim"]
    if width > WIDEST:
        yield f"num_attention_heads x attention_head_dim is {width}; at most {WIDEST} is built"
    axes = config.get("axes_dims_rope", AXES)
    if sum(axes) != found["attention_head_dim"] or any(axis % 2 for axis in axes):
        yield f"axes_dims_rope is {list(axes)}; even numbers that add up to {found['attention_head_dim']} turn a head"
    outputs = found["patch_size"] ** 2 * (found["out_channels"] or found["in_channels"])
    if outputs != found["in_channels"]:
        yield f"it makes {outputs} channels of patch_size and out_channels, but in_channels is {found['in_channels']}"


def shapes(config: Mapping[str, Any]) -> Linears:
    """(in, out) of every linear of the transformer by its dotted name, with the original code's names for them."""
    found = complete(config)
    width = found["num_attention_heads"] * found["attention_head_dim"]
    outputs = found["patch_size"] ** 2 * (found["out_channels"] or found["in_channels"])
    embedders = {"timestep_embedder": TIMESTEP_CHANNELS, "text_embedder": found["pooled_projection_dim"]}
    if found["guidance_embeds"]:
        embedders["guidance_embedder"] = TIMESTEP_CHANNELS
    linears = {
        "x_embedder": (found["in_channels"], width),
        "context_embedder": (found["joint_attention_dim"], width),
        **{f"time_text_embed.{name}.linear_1": (inputs, width) for name, inputs in embedders.items()},
        **{f"time_text_embed.{name}.linear_2": (width, width) for name in embedders},
        "norm_out.linear": (width, 2 * width),
        "proj_out": (width, outputs),
    }
    for blocks, count, tails in (
        ("transformer_blocks", found["num_layers"], DOUBLE),
        ("single_transformer_blocks", found["num_single_layers"], SINGLE),
    ):
        for block in range(count):
            for tail, (inputs, outs) in tails.items():
                linears[f"{blocks}.{block}.{tail}"] = (inputs * width, outs * width)
    return Linears(linears, _originals(linears, found["num_layers"], found["num_single_layers"]))


def _originals(linears: Mapping[str, tuple[int, int]], doubles: int, singles: int) -> dict[str, tuple[LinearRows, ...]]:
    """{the original code's name: its linears here}."""
    names: dict[str, Sequence[str]] = {
        original: (name,) for original, name in OUTER_ORIGINALS.items() if name in linears
    }
    for old, new, count, tails in (
        ("double_blocks", "transformer_blocks", doubles, DOUBLE_ORIGINALS),
        ("single_blocks", "single_transformer_blocks", singles, SINGLE_ORIGINALS),
    ):
        for block in range(count):
            for original, parts in tails.items():
                names[f"{old}.{block}.{original}"] = [f"{new}.{block}.{part}" for part in parts]
    # there the shift comes first and then the scale; diffusers' AdaLayerNormContinuous has them the other way round
    half = linears["norm_out.linear"][1] // 2
    turned = LinearRows("norm_out.linear", ((half, 2 * half), (0, half)))
    joined = {original: Linears.joined(linears, parts) for original, parts in names.items()}
    return {**joined, "final_layer.adaLN_modulation.1": (turned,)}


def in_blocks(linears: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """The linears inside the blocks: what LoRA trainers train, and the student too."""
    return tuple(name for name in linears if name.startswith(("transformer_blocks.", "single_transformer_blocks.")))

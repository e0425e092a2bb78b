"""What the configurations of a FLUX.1 Kontext may say: a type and a range for each field that a part is built from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clora.api import FLOW_MATCH_EULER, config_fields as kinds

#: beyond these a number is a mistake, and would only fill the memory
_LAYERS = kinds.Whole(1, 256)
_HEADS = kinds.Whole(1, 1024)
_WIDTH = kinds.Whole(1, 1 << 16)
_INNER = kinds.Whole(1, 1 << 20)
_VOCABULARY = kinds.Whole(1, 1 << 22)
_TOKENS = kinds.Whole(0, 1 << 24, null=True)
_EPSILON = kinds.Number(1e-12, 1.0)
_SHARE = kinds.Number(0.0, 1.0)
_ACTIVATION = kinds.OneOf(("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "swish", "mish"))
_TRANSFORMERS: kinds.Fields = {  # what every configuration of transformers has
    "model_type": kinds.Name(),
    "architectures": kinds.Several(kinds.Name(), 0, 16, null=True),
    "dtype": kinds.Name(null=True),
    "torch_dtype": kinds.Name(null=True),
    "vocab_size": _VOCABULARY,
    "initializer_factor": kinds.Number(0.0, 1e3),
    "initializer_range": kinds.Number(0.0, 10.0),
    "bos_token_id": _TOKENS,
    "eos_token_id": _TOKENS,
    "pad_token_id": _TOKENS,
    "decoder_start_token_id": _TOKENS,
    "tie_word_embeddings": kinds.Flag(),
    "use_cache": kinds.Flag(),
    "is_decoder": kinds.Flag(),
    "is_encoder_decoder": kinds.Flag(),
}

TRANSFORMER: kinds.Fields = {
    "_class_name": kinds.Name(),
    "patch_size": kinds.Whole(1, 64),
    "in_channels": _WIDTH,
    "out_channels": kinds.Whole(1, 1 << 16, null=True),
    "num_layers": _LAYERS,
    "num_single_layers": _LAYERS,
    "attention_head_dim": kinds.Whole(2, 1024),
    "num_attention_heads": _HEADS,
    "joint_attention_dim": _WIDTH,
    "pooled_projection_dim": _WIDTH,
    "guidance_embeds": kinds.Flag(),
    "axes_dims_rope": kinds.Several(kinds.Whole(2, 1024), 3, 3),
}
VAE: kinds.Fields = {
    "_class_name": kinds.Name(),
    "in_channels": kinds.Whole(3, 3),
    "out_channels": kinds.Whole(3, 3),
    "down_block_types": kinds.Several(kinds.OneOf(("DownEncoderBlock2D", "AttnDownEncoderBlock2D")), 1, 8),
    "up_block_types": kinds.Several(kinds.OneOf(("UpDecoderBlock2D", "AttnUpDecoderBlock2D")), 1, 8),
    "block_out_channels": kinds.Several(kinds.Whole(1, 8192), 1, 8),
    "layers_per_block": kinds.Whole(1, 64),
    "act_fn": _ACTIVATION,
    "latent_channels": kinds.Whole(1, 1024),
    "norm_num_groups": kinds.Whole(1, 1024),
    "sample_size": kinds.Whole(1, 1 << 16),
    "scaling_factor": kinds.Number(1e-4, 1e4, null=True),
    "shift_factor": kinds.Number(-1e4, 1e4, null=True),
    "latents_mean": kinds.Several(kinds.Number(-1e4, 1e4), 1, 1024, null=True),
    "latents_std": kinds.Several(kinds.Number(1e-4, 1e4), 1, 1024, null=True),
    "force_upcast": kinds.Flag(null=True),
    "use_quant_conv": kinds.Flag(),
    "use_post_quant_conv": kinds.Flag(),
    "mid_block_add_attention": kinds.Flag(),
}
CLIP: kinds.Fields = {
    **_TRANSFORMERS,
    "hidden_size": _WIDTH,
    "intermediate_size": _INNER,
    "projection_dim": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "max_position_embeddings": kinds.Whole(1, 1 << 16),
    "hidden_act": _ACTIVATION,
    "layer_norm_eps": _EPSILON,
    "attention_dropout": _SHARE,
    "dropout": _SHARE,
}
T5: kinds.Fields = {
    **_TRANSFORMERS,
    "d_model": _WIDTH,
    "d_kv": kinds.Whole(1, 1024),
    "d_ff": _INNER,
    "num_layers": _LAYERS,
    "num_decoder_layers": kinds.Whole(1, 256, null=True),
    "num_heads": _HEADS,
    "relative_attention_num_buckets": kinds.Whole(4, 4096),
    "relative_attention_max_distance": kinds.Whole(8, 1 << 20),
    "dropout_rate": _SHARE,
    "classifier_dropout": _SHARE,
    "layer_norm_epsilon": _EPSILON,
    "feed_forward_proj": kinds.OneOf(("relu", "gelu", "gated-gelu", "gated-silu", "gated-relu")),
    "dense_act_fn": _ACTIVATION,
    "is_gated_act": kinds.Flag(),
    "scale_decoder_outputs": kinds.Flag(),
    "output_past": kinds.Flag(),
}
TOKENIZER: kinds.Fields = {
    "tokenizer_class": kinds.Name(null=True),
    "backend": kinds.Name(),
    "model_max_length": kinds.Number(1, 1.1e30),
    "padding_side": kinds.OneOf(("left", "right")),
    "truncation_side": kinds.OneOf(("left", "right")),
    "add_prefix_space": kinds.Flag(null=True),
    "do_lower_case": kinds.Flag(null=True),
    "legacy": kinds.Flag(null=True),
    "extra_ids": kinds.Whole(0, 10_000),
    **{f"{name}_token": kinds.Token() for name in ("bos", "eos", "pad", "unk")},
    **dict.fromkeys(
        ("extra_special_tokens", "additional_special_tokens"),
        kinds.Either(kinds.Several(kinds.Token(), 0, 10_000, null=True), kinds.Section({})),
    ),
}
FIELDS: Mapping[str, kinds.Fields] = {
    "scheduler": FLOW_MATCH_EULER,
    "text_encoder": CLIP,
    "text_encoder_2": T5,
    "tokenizer": TOKENIZER,
    "tokenizer_2": TOKENIZER,
    "transformer": TRANSFORMER,
    "vae": VAE,
}


def clip_misfits(clip: Mapping[str, Any]) -> Iterator[str]:
    """Fields of CLIP that contradict one another, each as one sentence."""
    width, heads = clip.get("hidden_size", 512), clip.get("num_attention_heads", 8)
    if width % heads:
        yield f"num_attention_heads is {heads}, which does not divide hidden_size, {width}"
    yield from _tokens(clip, 49408)


def t5_misfits(t5: Mapping[str, Any]) -> Iterator[str]:
    """Fields of T5 that contradict one another, each as one sentence."""
    buckets, far = t5.get("relative_attention_num_buckets", 32), t5.get("relative_attention_max_distance", 128)
    if far <= buckets // 4:
        yield f"relative_attention_max_distance is {far}; it must be more than a quarter of the {buckets} buckets"
    yield from _tokens(t5, 32128)


def vae_misfits(vae: Mapping[str, Any]) -> Iterator[str]:
    """Fields of the VAE that contradict one another, or that FLUX needs and that are missing, each as one sentence."""
    for name in ("scaling_factor", "shift_factor"):
        if vae.get(name) is None:
            yield f"{name} is None, FLUX's latents need a number"
    widths, groups = vae.get("block_out_channels", [64]), vae.get("norm_num_groups", 32)
    for name in ("down_block_types", "up_block_types"):
        if len(vae.get(name, [0])) != len(widths):
            yield f"{name} has {len(vae.get(name, [0]))} blocks, but block_out_channels {len(widths)}"
    if any(width % groups for width in widths):
        yield f"norm_num_groups is {groups}, which does not divide block_out_channels, {widths}"


def _tokens(encoder: Mapping[str, Any], default: int) -> Iterator[str]:
    vocabulary = encoder.get("vocab_size", default)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if (encoder.get(name) or 0) >= vocabulary:
            yield f"{name} is {encoder[name]}, but vocab_size is {vocabulary}"

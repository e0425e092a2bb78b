"""What the configurations of a Qwen-Image-Edit may say: a type and a range for each field that a part is built from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clora.api import FLOW_MATCH_EULER, config_fields as kinds, quoted

#: beyond these a number is a mistake, and would only fill the memory
_LAYERS = kinds.Whole(1, 256)
_HEADS = kinds.Whole(1, 1024)
_WIDTH = kinds.Whole(1, 1 << 16)
_TOKENS = kinds.Whole(0, 1 << 24, null=True)
_LENGTH = kinds.Whole(1, 1 << 24, null=True)
_SHARE = kinds.Number(0.0, 1.0, null=True)
_EPSILON = kinds.Number(1e-12, 1.0)
_ACTIVATION = kinds.OneOf(("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "swish"))

TRANSFORMER: kinds.Fields = {
    "_class_name": kinds.Name(),
    "patch_size": kinds.Whole(1, 64),
    "in_channels": _WIDTH,
    "out_channels": kinds.Whole(1, 1 << 16, null=True),
    "num_layers": _LAYERS,
    "attention_head_dim": kinds.Whole(2, 1024),
    "num_attention_heads": _HEADS,
    "joint_attention_dim": _WIDTH,
    "axes_dims_rope": kinds.Several(kinds.Whole(2, 1024), 3, 3),
    "guidance_embeds": kinds.Flag(),
    "zero_cond_t": kinds.Flag(),
    "use_additional_t_cond": kinds.Flag(),
    "use_layer3d_rope": kinds.Flag(),
}
VAE: kinds.Fields = {
    "_class_name": kinds.Name(),
    "base_dim": kinds.Whole(1, 4096),
    "z_dim": kinds.Whole(1, 1024),
    "dim_mult": kinds.Several(kinds.Whole(1, 64), 4, 4),
    "num_res_blocks": kinds.Whole(1, 64),
    "attn_scales": kinds.Several(kinds.Number(0.0, 64.0), 0, 16),
    "temperal_downsample": kinds.Several(kinds.Flag(), 3, 3),
    "dropout": kinds.Number(0.0, 1.0),
    "input_channels": kinds.Whole(3, 3),
    "latents_mean": kinds.Several(kinds.Number(-1e4, 1e4), 1, 1024),
    "latents_std": kinds.Several(kinds.Number(1e-4, 1e4), 1, 1024),
}
_ROPE = kinds.Section(
    {
        "rope_type": kinds.Name(),
        "type": kinds.Name(),
        "rope_theta": kinds.Number(1.0, 1e12),
        "mrope_section": kinds.Several(kinds.Whole(1, 1024), 3, 3),
    },
    null=True,
)
_WORDS: kinds.Fields = {
    "model_type": kinds.Name(),
    "vocab_size": kinds.Whole(1, 1 << 22),
    "hidden_size": _WIDTH,
    "intermediate_size": kinds.Whole(1, 1 << 20),
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": kinds.Whole(1, 1024, null=True),
    "hidden_act": _ACTIVATION,
    "max_position_embeddings": kinds.Whole(1, 1 << 24),
    "initializer_range": kinds.Number(0.0, 10.0),
    "rms_norm_eps": _EPSILON,
    "use_cache": kinds.Flag(),
    "use_sliding_window": kinds.Flag(null=True),
    "sliding_window": _LENGTH,
    "max_window_layers": kinds.Whole(0, 1 << 16, null=True),
    "layer_types": kinds.Several(kinds.OneOf(("full_attention", "sliding_attention")), 0, 256, null=True),
    "attention_dropout": _SHARE,
    "rope_parameters": _ROPE,
    "rope_scaling": _ROPE,
    "rope_theta": kinds.Number(1.0, 1e12),
    "bos_token_id": _TOKENS,
    "eos_token_id": kinds.Either(_TOKENS, kinds.Several(_TOKENS, 1, 16)),
    "pad_token_id": _TOKENS,
    "tie_word_embeddings": kinds.Flag(),
    "dtype": kinds.Name(null=True),
    "torch_dtype": kinds.Name(null=True),
    "architectures": kinds.Several(kinds.Name(), 0, 16, null=True),
}
_PICTURES: kinds.Fields = {
    "model_type": kinds.Name(),
    "depth": _LAYERS,
    "hidden_size": _WIDTH,
    "intermediate_size": kinds.Whole(1, 1 << 20),
    "num_heads": _HEADS,
    "in_channels": kinds.Whole(3, 3),
    "in_chans": kinds.Whole(3, 3),
    "patch_size": kinds.Whole(1, 64),
    "spatial_patch_size": kinds.Whole(1, 64),
    "spatial_merge_size": kinds.Whole(1, 16),
    "temporal_patch_size": kinds.Whole(1, 16),
    "tokens_per_second": kinds.Whole(1, 1000),
    "window_size": kinds.Whole(1, 4096),
    "out_hidden_size": _WIDTH,
    "fullatt_block_indexes": kinds.Several(kinds.Whole(0, 255), 0, 256),
    "hidden_act": _ACTIVATION,
    "initializer_range": kinds.Number(0.0, 10.0),
    "rope_parameters": _ROPE,
}
TEXT_ENCODER: kinds.Fields = {
    **_WORDS,
    "text_config": kinds.Section(_WORDS, null=True),
    "vision_config": kinds.Section(_PICTURES, null=True),
    "image_token_id": kinds.Whole(0, 1 << 24),
    "video_token_id": kinds.Whole(0, 1 << 24),
    "vision_start_token_id": kinds.Whole(0, 1 << 24),
    "vision_end_token_id": kinds.Whole(0, 1 << 24),
    "vision_token_id": kinds.Whole(0, 1 << 24),
}
_PIXELS = kinds.Whole(1, 1 << 25, null=True)  # a larger picture would only be made larger
_COLOURS = kinds.Several(kinds.Number(-100.0, 100.0), 3, 3)
PROCESSOR: kinds.Fields = {
    **{f"do_{what}": kinds.Flag(null=True) for what in ("convert_rgb", "normalize", "rescale", "resize")},
    "image_mean": _COLOURS,
    "image_std": kinds.Several(kinds.Number(1e-4, 100.0), 3, 3),
    "image_processor_type": kinds.Name(),
    "processor_class": kinds.Name(null=True),
    "max_pixels": _PIXELS,
    "min_pixels": _PIXELS,
    "merge_size": kinds.Whole(1, 16),
    "patch_size": kinds.Whole(1, 64),
    "temporal_patch_size": kinds.Whole(1, 16),
    "resample": kinds.Whole(0, 5),
    "rescale_factor": kinds.Number(1e-6, 1.0),
    "size": kinds.Section(
        dict.fromkeys(("longest_edge", "shortest_edge", "max_pixels", "min_pixels"), _PIXELS), null=True
    ),
}
TOKENIZER: kinds.Fields = {
    "tokenizer_class": kinds.Name(null=True),
    "processor_class": kinds.Name(null=True),
    "backend": kinds.Name(),
    "model_max_length": kinds.Number(1, 1.1e30),
    "padding_side": kinds.OneOf(("left", "right")),
    "truncation_side": kinds.OneOf(("left", "right")),
    "add_prefix_space": kinds.Flag(null=True),
    "add_bos_token": kinds.Flag(null=True),
    "split_special_tokens": kinds.Flag(),
    **{f"{name}_token": kinds.Token() for name in ("bos", "eos", "pad", "unk")},
    **{
        name: kinds.Either(kinds.Several(kinds.Token(), 0, 10_000, null=True), kinds.Section({}))
        for name in ("extra_special_tokens", "additional_special_tokens")
    },
}
FIELDS: Mapping[str, kinds.Fields] = {
    "scheduler": FLOW_MATCH_EULER,
    "text_encoder": TEXT_ENCODER,
    "tokenizer": TOKENIZER,
    "processor": PROCESSOR,
    "processor/tokenizer_config.json": TOKENIZER,  # the whole processor reads its own
    "transformer": TRANSFORMER,
    "vae": VAE,
}


def words_of(encoder: Mapping[str, Any]) -> Mapping[str, Any]:
    """The half of a text encoder's configuration that is about words; files before 2025 have it on the outside."""
    return encoder.get("text_config") or encoder


def encoder_misfits(encoder: Mapping[str, Any], processor: Mapping[str, Any]) -> Iterator[str]:
    """Fields of the text encoder that contradict one another, or the processor's, each as one sentence."""
    words, pictures = words_of(encoder), encoder.get("vision_config") or {}
    width, heads = words.get("hidden_size", 8192), words.get("num_attention_heads", 64)
    groups = words.get("num_key_value_heads", 8) or heads
    if width % (2 * heads):
        yield f"num_attention_heads is {heads}, but hidden_size is {width}, which they cannot halve evenly among them"
    elif heads % groups:
        yield f"num_key_value_heads is {groups}, which does not divide num_attention_heads, {heads}"
    layers, kinds_of = words.get("num_hidden_layers", 80), words.get("layer_types")
    if kinds_of and len(kinds_of) != layers:
        yield f"layer_types has {len(kinds_of)} layers, but num_hidden_layers is {layers}"
    rope = words.get("rope_parameters") or words.get("rope_scaling") or {}
    turned = sum(rope.get("mrope_section", ()))
    if turned and turned != width // heads // 2:
        yield f"mrope_section adds up to {turned}, but half of a head is {width // heads // 2}"
    vocabulary = words.get("vocab_size", 152064)
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        if encoder.get(name, 0) >= vocabulary:
            yield f"{name} is {encoder[name]}, but vocab_size is {vocabulary}"
    if (words.get("pad_token_id") or 0) >= vocabulary:
        yield f"pad_token_id is {words['pad_token_id']}, but vocab_size is {vocabulary}"
    yield from _picture_misfits(pictures, width, processor)


def _picture_misfits(pictures: Mapping[str, Any], width: int, processor: Mapping[str, Any]) -> Iterator[str]:
    """The same of the half that is about pictures, whose words are `width` wide."""
    inner, heads = pictures.get("hidden_size", 3584), pictures.get("num_heads", 16)
    if inner % (4 * heads):
        yield f"vision_config.num_heads is {heads}, but hidden_size is {inner}, which has no quarter for each"
    patch, merge = pictures.get("patch_size", 14), pictures.get("spatial_merge_size", 2)
    if pictures.get("window_size", 112) < patch * merge:
        yield f"vision_config.window_size is {pictures['window_size']}, less than a merged patch of {patch * merge}"
    if pictures.get("out_hidden_size", 3584) != width:
        yield f"vision_config.out_hidden_size is {pictures.get('out_hidden_size', 3584)}, but words have {width}"
    for name, ours, default in (
        ("patch_size", patch, 14),
        ("merge_size", merge, 2),
        ("temporal_patch_size", pictures.get("temporal_patch_size", 2), 2),
    ):
        if processor.get(name, default) != ours:
            yield f"vision_config has {name} {ours}, but the processor has {quoted(processor[name])}"


def vae_misfits(vae: Mapping[str, Any]) -> Iterator[str]:
    """Fields of the VAE that contradict one another, each as one sentence."""
    channels = vae.get("z_dim", 16)
    for name in ("latents_mean", "latents_std"):
        if name in vae and len(vae[name]) != channels:
            yield f"{name} is not a list of {channels} numbers"

"""A FLUX.1 Kontext of about a megabyte: diffusers' and transformers' own classes with random weights.

`python tests/tiny_flux.py FOLDER` writes it in diffusers' layout, for trying recipes without the real model. Sizes are
small, the rules are the real ones: a picture's sides are multiples of 16, noise levels are shifted by the size.
"""

from __future__ import annotations

import string
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

WIDTH = 32  # of both text encoders and of the transformer


def build(folder: Path, *, guidance_embeds: bool = True, seed: int = 0) -> Path:
    """Write the model into a folder and return it; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip, clip_tokenizer = _clip()
        t5, t5_tokenizer = _t5()
        pipe = FluxKontextPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=_vae(),
            text_encoder=clip,
            tokenizer=clip_tokenizer,
            text_encoder_2=t5,
            tokenizer_2=t5_tokenizer,
            transformer=_transformer(guidance_embeds),
        )
    pipe.save_pretrained(folder)
    return folder


def _clip() -> tuple[CLIPTextModel, CLIPTokenizer]:
    """A text encoder of 77 positions and a tokenizer that knows every byte, inside a word and at its end."""
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(pieces),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=len(pieces) - 2,
        eos_token_id=len(pieces) - 1,
        pad_token_id=len(pieces) - 1,
    )
    return CLIPTextModel(config), tokenizer


def _t5() -> tuple[T5EncoderModel, T5Tokenizer]:
    """A text encoder and a unigram tokenizer of single characters and a few whole words."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -3.0) for word in ("make", "it", "turn", "into", "the", "a", "picture", "of")]
    characters = [(character, -6.0) for character in ["▁", *string.ascii_letters, *string.digits, *"_-.,'!?<>"]]
    tokenizer = T5Tokenizer(vocab=[*special, *words, *characters], extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config), tokenizer


def _vae() -> AutoencoderKL:
    """A VAE with FLUX's 16 channels, factor 8, scale and shift."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _transformer(guidance_embeds: bool) -> FluxTransformer2DModel:
    """Two double and two single blocks of two heads."""
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=WIDTH // 2,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))

"""A Qwen-Image-Edit of about a megabyte: diffusers' and transformers' own classes, random weights, the layout on disk.

    python tests/tiny_qwen.py OUT [--edition 2509|2511|original]

What it draws means nothing; how it is loaded, conditioned and sampled is the large model's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Literal

Edition = Literal["original", "2509", "2511"]

#: the width of the text encoder's words
WIDTH = 32
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


def build(folder: Path, *, edition: Edition = "2511", seed: int = 0) -> Path:
    """Write the model into `folder` and return it; the same seed gives the same weights."""
    import torch
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = tokenizer()
        encoder = Qwen2_5_VLForConditionalGeneration(_encoder_config(words)).eval()
        transformer = QwenImageTransformer2DModel(
            patch_size=2, in_channels=64, out_channels=16, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, axes_dims_rope=(4, 6, 6), zero_cond_t=edition == "2511",
        ).eval()  # fmt: skip
        vae = AutoencoderKLQwenImage(base_dim=8, dim_mult=[1, 1, 2, 2], z_dim=16, num_res_blocks=1).eval()
        _enliven(encoder)
        _enliven(transformer)
    encoder.save_pretrained(folder / "text_encoder")
    transformer.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    words.save_pretrained(folder / "tokenizer")
    words.save_pretrained(folder / "processor")
    scheduler().save_pretrained(folder / "scheduler")
    _write(folder / "processor" / "preprocessor_config.json", _PICTURES)
    _write(folder / "model_index.json", index(edition))
    return folder


def index(edition: Edition) -> dict[str, Any]:
    """model_index.json as the published editions have it: the stock classes by name."""
    return {
        "_class_name": "QwenImageEditPipeline" if edition == "original" else "QwenImageEditPlusPipeline",
        "_diffusers_version": "0.36.0",
        "processor": ["transformers", "Qwen2VLProcessor"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "QwenImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
    }


def tokenizer() -> Any:
    """A Qwen2 tokenizer with a token for every byte and the special tokens: 256 + 14."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    words = Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=131072, padding_side="right")
    words.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return words


def scheduler() -> Any:
    """The scheduler with the published model's configuration."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, base_image_seq_len=256, max_image_seq_len=8192,
        shift=1.0, shift_terminal=0.02, time_shift_type="exponential",
    )  # fmt: skip


#: the published preprocessor_config.json; pictures of the conditions' size fit in it
_PICTURES = {
    "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor",
    "max_pixels": 12845056, "min_pixels": 3136, "merge_size": 2, "patch_size": 14, "temporal_patch_size": 2,
    "resample": 3, "rescale_factor": 1 / 255, "size": {"longest_edge": 12845056, "shortest_edge": 3136},
}  # fmt: skip


def _encoder_config(words: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    def number(token: str) -> int:
        return words.convert_tokens_to_ids(token)

    text = {
        "vocab_size": len(words), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        "bos_token_id": number("<|endoftext|>"), "eos_token_id": number("<|im_end|>"),
        "pad_token_id": number("<|endoftext|>"),
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_heads": 2, "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"), vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )  # fmt: skip


def _enliven(network: Any) -> None:
    """Matrices large enough that words, source and noise level all show in the velocity."""
    import torch

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "embed_tokens" in name:
                parameter.normal_(0, 1)
            elif parameter.ndim == 2:
                parameter.normal_(0, (2.0 if "_mod" in name else 1.0) / parameter.shape[1] ** 0.5)


class PlainProcessor:
    """What Qwen2VLProcessor does with pictures; its own video part cannot be made without torchvision."""

    def __init__(self, pictures: Any, words: Any) -> None:
        self.pictures, self.words = pictures, words

    def __call__(self, text: list[str], images: Any, padding: bool, return_tensors: str) -> Any:
        """Token ids with one <|image_pad|> for every merged patch of the next picture, and the pictures' patches."""
        seen = self.pictures(images=images, return_tensors=return_tensors)
        counts = iter((seen["image_grid_thw"].prod(-1) // self.pictures.merge_size**2).tolist())
        token = "<|image_pad|>"
        spread = []
        for words in text:
            first, *rest = words.split(token)
            spread.append(first + "".join(token * next(counts) + part for part in rest))
        read = self.words(spread, padding=padding, return_tensors=return_tensors)
        read.update(seen)
        return read


def pipeline(folder: Path, dtype: Any = None) -> Any:
    """The stock pipeline of a folder on the CPU, float32 if no type is given; without torchvision our own processor."""
    import diffusers
    import torch
    from transformers import AutoImageProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer, Qwen2VLProcessor
    from transformers.utils import is_torchvision_available

    def local(cls: Any, part: str, **kwargs: Any) -> Any:
        return cls.from_pretrained(folder, subfolder=part, local_files_only=True, **kwargs)

    words = local(Qwen2Tokenizer, "tokenizer")
    if is_torchvision_available():
        processor = local(Qwen2VLProcessor, "processor")
    else:
        processor = PlainProcessor(local(AutoImageProcessor, "processor"), words)
    dtype = dtype or torch.float32
    encoder = local(Qwen2_5_VLForConditionalGeneration, "text_encoder", dtype=dtype)
    made = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"])(
        scheduler=local(diffusers.FlowMatchEulerDiscreteScheduler, "scheduler"),
        vae=local(diffusers.AutoencoderKLQwenImage, "vae", torch_dtype=dtype),
        text_encoder=encoder,
        tokenizer=words,
        processor=processor,
        transformer=local(diffusers.QwenImageTransformer2DModel, "transformer", torch_dtype=dtype),
    )
    made.set_progress_bar_config(disable=True)
    return made


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Build into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write a tiny random Qwen-Image-Edit in diffusers' layout.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--edition", choices=("original", "2509", "2511"), default="2511")
    given = parser.parse_args()
    print(build(given.out, edition=given.edition))


if __name__ == "__main__":
    main()

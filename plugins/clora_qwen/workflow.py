"""A ComfyUI workflow that edits a picture with a LoRA of this base."""

from __future__ import annotations

from typing import Any

#: what the files of ComfyUI's repackaged models are called
_FILES = {
    "original": "qwen_image_edit_bf16.safetensors",
    "2509": "qwen_image_edit_2509_bf16.safetensors",
    "2511": "qwen_image_edit_2511_bf16.safetensors",
}
_ENCODER = "qwen_2.5_vl_7b_fp8_scaled.safetensors"
_VAE = "qwen_image_vae.safetensors"


def workflow(edition: str, lora: str, prompt: str, steps: int, shift: float) -> dict[str, Any]:
    """ComfyUI's API format: load, add the LoRA, shift, encode words with the picture, sample, save.

    The sampler `lcm` predicts x0 and re-noises it, and `simple` takes evenly spaced levels of the shifted thousand:
    together the student's sampler.
    """
    encoder = "TextEncodeQwenImageEdit" if edition == "original" else "TextEncodeQwenImageEditPlus"
    picture = "image" if edition == "original" else "image1"
    words = {"clip": ["clip", 0], "vae": ["vae", 0], picture: ["scaled", 0]}
    nodes = {
        "model": _node("UNETLoader", unet_name=_FILES[edition], weight_dtype="default"),
        "clip": _node("CLIPLoader", clip_name=_ENCODER, type="qwen_image", device="default"),
        "vae": _node("VAELoader", vae_name=_VAE),
        "source": _node("LoadImage", image="source.png"),
        "scaled": _node("ImageScaleToTotalPixels", image=["source", 0], upscale_method="lanczos", megapixels=1.0),
        "lora": _node("LoraLoaderModelOnly", model=["model", 0], lora_name=lora, strength_model=1.0),
        "shifted": _node("ModelSamplingAuraFlow", model=["lora", 0], shift=shift),
        "prompt": _node(encoder, prompt=prompt, **words),
        "empty": _node(encoder, prompt="", **words),
        "latent": _node("VAEEncode", pixels=["scaled", 0], vae=["vae", 0]),
        "sampled": _node(
            "KSampler", model=["shifted", 0], positive=["prompt", 0], negative=["empty", 0], latent_image=["latent", 0],
            seed=0, steps=steps, cfg=1.0, sampler_name="lcm", scheduler="simple", denoise=1.0,
        ),
        "picture": _node("VAEDecode", samples=["sampled", 0], vae=["vae", 0]),
        "saved": _node("SaveImage", images=["picture", 0], filename_prefix="clora"),
    }  # fmt: skip
    # node names are numbers in ComfyUI's own files
    numbers = {name: str(number) for number, name in enumerate(nodes, 1)}

    def renamed(value: Any) -> Any:
        return [numbers[value[0]], value[1]] if isinstance(value, list) else value

    return {
        numbers[name]: node | {"inputs": {key: renamed(value) for key, value in node["inputs"].items()}}
        for name, node in nodes.items()
    }


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}

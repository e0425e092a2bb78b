"""The tiny models that other tests run on: diffusers' own pipelines load them, and their velocity depends on words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file


@pytest.mark.parametrize("edition", ["original", "2509", "2511"])
def test_the_stock_pipeline_edits_with_a_tiny_qwen(edition: str, tiny_qwen: Callable[[str], Path]) -> None:
    import tiny_qwen as tiny

    pipe = tiny.pipeline(tiny_qwen(edition))
    assert type(pipe).__name__ == ("QwenImageEditPipeline" if edition == "original" else "QwenImageEditPlusPipeline")
    assert pipe.transformer.config.zero_cond_t is (edition == "2511")
    picture = Image.new("RGB", (64, 96), "orange")
    seen = picture if edition == "original" else [picture]
    short, mask = pipe.encode_prompt(image=seen, prompt="blue")
    longer, _ = pipe.encode_prompt(image=seen, prompt="make it blue")
    assert mask is None
    assert short.shape[0] == 1
    assert longer.shape[1] - short.shape[1] == len("make it ")  # a token for every byte
    noise = torch.randn(1, 24, 64, generator=torch.Generator().manual_seed(0))
    latents = torch.cat([noise, noise.flip(1)], 1)

    def velocity(words: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            shapes = [[(1, 6, 4), (1, 6, 4)]]
            return pipe.transformer(latents, words, None, torch.tensor([0.5]), shapes, return_dict=False)[0]

    changed = (velocity(short) - velocity(longer)).square().mean() / velocity(short).square().mean()
    assert changed > 1e-5  # rounding would give 1e-12; most of the words are the template's


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, tiny_qwen: Callable[[str], Path]) -> None:
    import tiny_qwen as tiny

    again = tiny.build(tmp_path, edition="2511")
    for part in ("transformer", "vae"):
        file = Path(part) / "diffusion_pytorch_model.safetensors"
        first, second = load_file(tiny_qwen("2511") / file), load_file(again / file)
        assert all(torch.equal(first[name], second[name]) for name in first | second)
    assert sum(file.stat().st_size for file in again.rglob("*")) < 3 << 20

"""The velocity is what diffusers' transformer answers inside diffusers' pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from clora_flux.backbone import FluxKontext
from clora_flux.loaded import LoadedFlux
from clora_flux.tokens import pack, unpack
from diffusers import FluxKontextPipeline

from clora.api import Conditions, NetworkMemory

Photo = Callable[[int, int], tuple[Any, torch.Tensor]]
Condition = Callable[[Sequence[str], torch.Tensor], Conditions]


def _asked(pipe: FluxKontextPipeline, noise: torch.Tensor, **arguments: Any) -> list[tuple[dict[str, Any], Any]]:
    """What a stock call asks the transformer, and its answers."""
    calls: list[tuple[dict[str, Any], Any]] = []

    def keep(module: torch.nn.Module, args: Any, asked: dict[str, Any], answer: Any) -> None:
        calls.append((asked, answer[0]))

    handle = pipe.transformer.register_forward_hook(keep, with_kwargs=True)
    height, width = 8 * noise.shape[-2], 8 * noise.shape[-1]
    size = {"height": height, "width": width, "max_area": height * width, "_auto_resize": False}
    try:
        pipe(latents=pack(noise), output_type="latent", **size, **arguments)
    finally:
        handle.remove()
    return calls


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 64), (48, 16)])
def test_velocity_is_the_stock_transformers(
    pipe: FluxKontextPipeline, loaded: LoadedFlux, condition: Condition, photo: Photo, height: int, width: int
) -> None:
    image, picture = photo(height, width)
    noise = torch.randn(1, 16, height // 8, width // 8, generator=torch.Generator().manual_seed(1))
    calls = _asked(pipe, noise, image=image, prompt="make it blue", guidance_scale=2.5, num_inference_steps=3)
    conditions = condition(["make it blue"], picture)
    assert len(calls) == 3
    for asked, answer in calls:
        made = asked["hidden_states"].shape[1] // 2
        x_sigma = unpack(asked["hidden_states"][:, :made], *noise.shape[-2:])
        with torch.no_grad():
            velocity = loaded.velocity(x_sigma, asked["timestep"], conditions)
        torch.testing.assert_close(velocity, unpack(answer[:, :made], *noise.shape[-2:]), atol=2e-5, rtol=2e-5)


def test_what_velocity_depends_on(component: FluxKontext, loaded: LoadedFlux, condition: Condition) -> None:
    generator = torch.Generator().manual_seed(2)
    x, pictures = torch.randn(2, 16, 4, 4, generator=generator), torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    sigma, prompts = torch.tensor([0.7, 0.2]), ["make it blue", "turn it"]
    conditions = condition(prompts, pictures)
    other_guidance = evolve(component, guidance=7.0).load(torch.device("cpu"))
    other_words = condition(prompts[::-1], pictures)
    with torch.no_grad():
        velocity = loaded.velocity(x, sigma, conditions)
        others = {
            "guidance": other_guidance.velocity(x, sigma, conditions),
            "sigma": loaded.velocity(x, sigma.flip(0), conditions),
            "text": loaded.velocity(x, sigma, evolve(conditions, text=other_words.text)),
            "pooled": loaded.velocity(x, sigma, evolve(conditions, pooled=other_words.pooled)),
            "source": loaded.velocity(x, sigma, evolve(conditions, source=conditions.source.flip(0))),
        }
        alone = loaded.velocity(x[1:], sigma[1:], conditions.take([1]))
    for what, other in others.items():
        assert (velocity - other).square().mean() > 1e-6 * velocity.square().mean(), what
    torch.testing.assert_close(velocity[1:], alone, atol=1e-5, rtol=1e-5)  # a row does not see its neighbours


def test_a_model_without_guidance_embeddings_is_given_none(tmp_path: Path, photo: Photo) -> None:
    from tiny_flux import build

    folder = build(tmp_path, guidance_embeds=False)
    stock = FluxKontextPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    component = FluxKontext(str(folder), memory=NetworkMemory("fp32"))
    loaded = component.load(torch.device("cpu"))
    linears = {name: m for name, m in stock.transformer.named_modules() if isinstance(m, torch.nn.Linear)}
    assert component.shapes() == {name: (m.in_features, m.out_features) for name, m in linears.items()}

    image, picture = photo(32, 32)
    noise = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    ((asked, answer),) = _asked(stock, noise, image=image, prompt="blue", num_inference_steps=1)
    words = loaded.encode_prompts(["blue"], picture)
    conditions = Conditions(words.text, words.mask, loaded.encode_images(picture), words.pooled)
    with torch.no_grad():
        velocity = loaded.velocity(noise, asked["timestep"], conditions)
    torch.testing.assert_close(velocity, unpack(answer[:, :4], 4, 4), atol=2e-5, rtol=2e-5)


def test_bfloat16_rounds_where_the_pipeline_rounds(tiny_flux: Path, photo: Photo) -> None:
    stock = FluxKontextPipeline.from_pretrained(tiny_flux, dtype=torch.bfloat16)
    stock.set_progress_bar_config(disable=True)
    loaded = FluxKontext(str(tiny_flux)).load(torch.device("cpu"))
    image, picture = photo(32, 48)
    noise = torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(3)).bfloat16()
    calls = _asked(stock, noise, image=image, prompt="blue", guidance_scale=2.5, num_inference_steps=3)
    words = loaded.encode_prompts(["blue"], picture)
    conditions = Conditions(words.text, words.mask, torch.empty(1, 16, 4, 6), words.pooled)
    levels = stock.scheduler.sigmas  # float32: the pipeline rounds them on their way to the transformer
    for sigma, (asked, answer) in zip(levels, calls, strict=False):
        x_sigma, source = (unpack(tokens, 4, 6).float() for tokens in asked["hidden_states"].split(6, dim=1))
        with torch.no_grad():
            velocity = loaded.velocity(x_sigma, sigma.reshape(1), evolve(conditions, source=source))
        assert velocity.dtype == torch.float32
        assert velocity.equal(unpack(answer[:, :6], 4, 6).float())

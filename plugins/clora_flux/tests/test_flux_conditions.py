"""Words, latents and sizes are those of diffusers' own pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from attrs import evolve
from clora_flux.backbone import FluxKontext
from clora_flux.loaded import LoadedFlux
from clora_flux.sizes import size_of
from clora_flux.tokens import pack, positions, unpack
from diffusers import FluxKontextPipeline

from clora.adapters.features import listening
from clora.api import CloraError, Conditions

Photo = Callable[[int, int], tuple[Any, torch.Tensor]]
PROMPTS = ["make it <blue_x7>", "", "Turn the picture into a mosaic, then " * 9]


def test_words_are_the_pipelines(pipe: FluxKontextPipeline, loaded: LoadedFlux) -> None:
    with torch.no_grad():
        text, pooled, _ = pipe.encode_prompt(PROMPTS)
    words = loaded.encode_prompts(PROMPTS, torch.zeros(3, 3, 16, 16))
    assert words.text.equal(text)
    assert words.text.shape == (3, 512, 32)
    assert words.mask.shape == (3, 512)
    assert words.mask.all()  # FLUX attends to T5's padding
    assert words.pooled is not None
    assert words.pooled.equal(pooled)
    assert (words.text[0] - words.text[1]).abs().max() > 0.1
    assert (words.pooled[0] - words.pooled[1]).abs().max() > 0.1


def test_a_shorter_text_is_the_pipelines_too(pipe: FluxKontextPipeline, component: FluxKontext) -> None:
    with torch.no_grad():
        text, _, _ = pipe.encode_prompt(PROMPTS[:1], max_sequence_length=24)
    shorter = evolve(component, max_sequence_length=24).load(torch.device("cpu"))
    assert shorter.encode_prompts(PROMPTS[:1], torch.zeros(1, 3, 16, 16)).text.equal(text)


def test_tokens_are_t5s_own_words(component: FluxKontext, pipe: FluxKontextPipeline) -> None:
    assert list(component.tokens("make it")) == pipe.tokenizer_2("make it").input_ids[:-1]
    assert component.tokens("<blue_x7>") != component.tokens("<blue_x8>")


@pytest.mark.parametrize(("height", "width"), [(32, 48), (64, 32)])
def test_latents_are_the_pipelines(
    pipe: FluxKontextPipeline, loaded: LoadedFlux, photo: Photo, height: int, width: int
) -> None:
    image, picture = photo(height, width)
    prepared = pipe.image_processor.preprocess(image, height, width)
    device, noise = torch.device("cpu"), torch.zeros(1, 1, 1)
    with torch.no_grad():
        _, packed, made_ids, reference_ids = pipe.prepare_latents(
            prepared, 1, 16, height, width, torch.float32, device, latents=noise
        )
    latents = loaded.encode_images(picture)
    assert latents.shape == (1, 16, height // 8, width // 8)
    torch.testing.assert_close(pack(latents), packed, atol=1e-5, rtol=1e-5)
    assert positions(latents, 0).equal(made_ids)
    assert positions(latents, 1).equal(reference_ids)
    assert unpack(pack(latents), *latents.shape[-2:]).equal(latents)


def test_decoding_is_the_pipelines_last_step(pipe: FluxKontextPipeline, loaded: LoadedFlux) -> None:
    latents = torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pipe.vae.decode(latents / 0.3611 + 0.1159).sample
    torch.testing.assert_close(loaded.decode(latents), expected.clamp(-1, 1), atol=1e-5, rtol=1e-5)
    assert loaded.decode(200 * latents).abs().max() <= 1


def test_features_are_the_tokens_of_the_picture_being_made(loaded: LoadedFlux) -> None:
    latents = torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    words = loaded.encode_prompts(["to gold", "to clay"], torch.zeros(2, 3, 32, 48))
    conditions = Conditions(words.text, words.mask, latents.flip(0), words.pooled)
    behind: list[torch.Tensor] = []
    loaded.network.norm_out.register_forward_pre_hook(lambda module, args: behind.append(args[0]))
    with torch.no_grad(), listening(loaded.blocks(), (1.0, 0.5)) as noted:
        loaded.velocity(latents, torch.tensor([0.3, 0.9]), conditions)
    assert len(loaded.blocks()) == len(loaded.network.transformer_blocks) + len(
        loaded.network.single_transformer_blocks
    )
    last, middle = (loaded.features(noted[depth], latents) for depth in (1.0, 0.5))
    assert last.equal(behind[0][:, :6])  # 2 x 3 tokens, before those of the source
    assert middle.shape == last.shape == (2, 6, loaded.backbone.feature_width())
    assert not middle.equal(last)


def test_a_loss_of_pictures_has_the_decoders_gradient(pipe: FluxKontextPipeline, loaded: LoadedFlux) -> None:
    latents = torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    ours, stock = latents.clone().requires_grad_(), latents.clone().requires_grad_()
    loaded.decode(ours).square().mean().backward()
    pipe.vae.decode(stock / 0.3611 + 0.1159).sample.clamp(-1, 1).square().mean().backward()
    assert ours.grad is not None
    assert ours.grad.abs().sum() > 0
    torch.testing.assert_close(ours.grad, stock.grad, atol=1e-7, rtol=1e-4)
    assert not any(weight.requires_grad for weight in loaded.pictures.parameters())


class _SeenError(Exception):
    """Raised where the pipeline has resized its picture, so that nothing large is computed."""


@pytest.mark.parametrize(("height", "width"), [(48, 40), (100, 30), (33, 90)])
def test_a_picture_is_resized_as_the_pipeline_does(
    pipe: FluxKontextPipeline, loaded: LoadedFlux, photo: Photo, height: int, width: int
) -> None:
    image, picture = photo(height, width)
    with patch.object(pipe, "prepare_latents", side_effect=_SeenError) as prepare, pytest.raises(_SeenError):
        pipe(image=image, prompt="", num_inference_steps=1)
    resized = prepare.call_args.args[0]
    fitted = loaded.fit(picture)
    assert fitted.shape == resized.shape
    torch.testing.assert_close(fitted, resized, atol=1e-6, rtol=0)
    assert loaded.fit(fitted).equal(fitted)


def test_an_area_may_be_asked_for() -> None:
    assert size_of(1000, 1000, None, 16) == (1024, 1024)
    assert size_of(304, 200, 64, 16) == (80, 48)  # 304 x 192: 80.5 x 50.9
    assert size_of(288, 128, 96, 16) == (144, 64)
    assert size_of(5, 5000, 64, 16) == (16, 1120)  # never less than one patch


def test_a_size_that_does_not_fall_into_patches_is_told(loaded: LoadedFlux) -> None:
    with pytest.raises(CloraError, match=r"multiples of 16, not 32 x 40"):
        loaded.encode_images(torch.zeros(1, 3, 40, 32))


def test_a_picture_does_not_see_its_batch(loaded: LoadedFlux) -> None:
    pictures = torch.rand(3, 3, 16, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = loaded.encode_images(pictures)
    assert loaded.encode_images(pictures[1:2]).equal(latents[1:2])
    assert loaded.decode(latents[2:]).equal(loaded.decode(latents)[2:])

"""The tiny model twice: as diffusers' stock pipeline and as the component under test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from clora_flux.backbone import FluxKontext
from clora_flux.loaded import LoadedFlux
from diffusers import FluxKontextPipeline
from PIL import Image

from clora.api import Conditions, NetworkMemory

Condition = Callable[[Sequence[str], torch.Tensor], Conditions]


@pytest.fixture(scope="session")
def pipe(tiny_flux: Path) -> FluxKontextPipeline:
    """Diffusers' own pipeline in float32."""
    pipe = FluxKontextPipeline.from_pretrained(tiny_flux)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def component(tiny_flux: Path) -> FluxKontext:
    """The component in float32."""
    return FluxKontext(str(tiny_flux), memory=NetworkMemory("fp32"))


@pytest.fixture(scope="session")
def loaded(component: FluxKontext) -> LoadedFlux:
    """The component's model; a test that changes it loads its own."""
    return component.load(torch.device("cpu"))


@pytest.fixture(scope="session")
def condition(loaded: LoadedFlux) -> Condition:
    """`condition(prompts, pictures)`: the conditions of rows."""

    def made(prompts: Sequence[str], pictures: torch.Tensor) -> Conditions:
        words = loaded.encode_prompts(prompts, pictures)
        return Conditions(words.text, words.mask, loaded.encode_images(pictures), words.pooled)

    return made


@pytest.fixture
def photo() -> Callable[[int, int], tuple[Image.Image, torch.Tensor]]:
    """`photo(height, width)`: noise of 8 bits as Pillow's picture and as [1, 3, H, W] in [-1, 1]."""

    def made(height: int, width: int) -> tuple[Image.Image, torch.Tensor]:
        generator = torch.Generator().manual_seed(height)
        pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        return Image.fromarray(pixels.numpy()), pixels.permute(2, 0, 1)[None].float() / 127.5 - 1

    return made

"""A folder that is no FLUX.1 Kontext is told before anything is loaded, all its mistakes at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from clora_flux.backbone import FluxKontext

from clora.api import NetworkMemory

Change = Callable[[str, dict[str, Any]], FluxKontext]


@pytest.fixture
def changed(tiny_flux: Path, tmp_path: Path) -> Change:
    """`changed("vae/config.json", {"latent_channels": 4})`: the component on a copy with that file altered."""
    folder = shutil.copytree(tiny_flux, tmp_path / "flux")

    def change(file: str, values: dict[str, Any]) -> FluxKontext:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return FluxKontext(str(folder))

    return change


def test_a_whole_folder_has_no_problems(component: FluxKontext) -> None:
    assert list(component.check()) == []


def test_a_folder_that_is_not_there() -> None:
    (problem,) = FluxKontext("no/such/folder").check()
    assert problem.startswith("backbone flux_kontext: model: 'no/such/folder'")


def test_another_familys_parts_are_named(changed: Change) -> None:
    problems = list(
        changed(
            "model_index.json",
            {"transformer": ["diffusers", "QwenImageTransformer2DModel"], "text_encoder_2": ["x", "UMT5EncoderModel"]},
        ).check()
    )
    assert len(problems) == 2
    assert "UMT5EncoderModel" in problems[0]
    assert "QwenImageTransformer2DModel" in problems[1]
    assert "FluxTransformer2DModel" in problems[1]


def test_missing_weights_and_a_pickle(changed: Change) -> None:
    component = changed("model_index.json", {})
    folder = Path(component.model)
    (folder / "vae/diffusion_pytorch_model.safetensors").rename(folder / "vae/diffusion_pytorch_model.bin")
    shutil.rmtree(folder / "text_encoder")
    text, vae = component.check()
    assert "text_encoder" in text
    assert "pickle" in vae


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("vae/config.json", {"latent_channels": 4}, ["in_channels is 64", "VAE is 16"]),
        ("text_encoder_2/config.json", {"d_model": 48}, ["joint_attention_dim is 32", "d_model is 48"]),
        ("text_encoder/config.json", {"hidden_size": 64}, ["pooled_projection_dim is 32", "hidden_size is 64"]),
        ("vae/config.json", {"shift_factor": None}, ["shift_factor is None"]),
        ("transformer/config.json", {"num_layers": "two"}, ["transformer/config.json", "num_layers is 'two'"]),
        ("transformer/config.json", {"guidance_embeds": 1}, ["guidance_embeds is 1"]),
    ],
)
def test_parts_that_do_not_fit_one_another(
    changed: Change, file: str, values: dict[str, Any], words: list[str]
) -> None:
    (problem,) = changed(file, values).check()
    assert all(word in problem for word in words), problem


def test_what_a_configuration_leaves_out_is_the_classs_own(changed: Change) -> None:
    component = changed("transformer/config.json", {})
    path = Path(component.model) / "transformer" / "config.json"
    path.write_text('{"_class_name": "FluxTransformer2DModel"}')
    assert component.feature_width() == 3072
    assert component.shapes()["transformer_blocks.18.attn.to_q"] == (3072, 3072)


def test_a_guidance_distilled_transformer_needs_its_guidance(component: FluxKontext) -> None:
    (problem,) = evolve(component, guidance=None).check()
    assert "guidance" in problem


def test_the_digest_knows_weights_and_keys(component: FluxKontext, changed: Change) -> None:
    digest = component.digest()
    assert changed("model_index.json", {}).digest() != digest  # rewritten without its line breaks
    assert FluxKontext(component.model, memory=component.memory).digest() == digest
    for other in ({"guidance": 3.0}, {"memory": NetworkMemory("bf16")}, {"max_sequence_length": 64}, {"side": 64}):
        assert evolve(component, **other).digest() != digest
    assert (
        evolve(component, memory=NetworkMemory("fp32", gradient_checkpointing=True, offload_blocks=1)).digest()
        == digest
    )

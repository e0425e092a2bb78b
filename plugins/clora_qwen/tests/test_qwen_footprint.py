"""The predicted footprint against a real forward pass of the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clora_qwen.backbone import QwenImageEdit
from clora_qwen.footprint import text_tokens

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.api import Conditions, NetworkMemory, StepRng
from clora.toolkit.memory.measure import LiveBytes

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

SIDE, RANK = 320, 4


@pytest.mark.parametrize("edition", ["2509", "2511"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_row_takes_what_was_predicted(tiny_qwen: Callable[[str], Path], edition: str, checkpointing: bool) -> None:
    how = NetworkMemory("fp32", gradient_checkpointing=checkpointing)
    backbone = QwenImageEdit(model=str(tiny_qwen(edition)), memory=how)
    predicted = backbone.footprint(RANK, (SIDE, SIDE))
    loaded = backbone.load(torch.device("cpu"))
    assert predicted.weights == sum(p.numel() * 4 for p in loaded.network.parameters())
    shapes = {name: backbone.shapes()[name] for name in backbone.targets()}
    adapted = AdaptedNetwork(loaded.network, backbone.targets())
    adapted.add("student", Adapter.fresh(shapes, RANK, RANK, StepRng(0)))
    latents, words = torch.zeros(1, 16, SIDE // 8, SIDE // 8), text_tokens(backbone, (SIDE, SIDE))
    conditions = Conditions(torch.zeros(1, words, 32), torch.ones(1, words, dtype=torch.bool), latents)
    sigma = torch.full((1,), 0.5)
    with adapted.rows(["student"]), torch.no_grad():
        loaded.velocity(latents, sigma, conditions)  # the model keeps its rotary embeddings from now on
    with adapted.rows(["student"]), LiveBytes() as live:
        loss = loaded.velocity(latents, sigma, conditions).sum()
        assert live.now == pytest.approx(predicted.row, rel=0.1)
        loss.backward()
    assert live.peak == pytest.approx(predicted.row + predicted.backward, rel=0.1)


def test_the_other_parts_are_as_large_as_their_files(tiny_qwen: Callable[[str], Path]) -> None:
    folder = tiny_qwen("2511")
    told = QwenImageEdit(model=str(folder), memory=NetworkMemory("fp32")).footprint(4, (64, 64))
    assert told.text == (folder / "text_encoder/model.safetensors").stat().st_size
    assert told.pictures == (folder / "vae/diffusion_pytorch_model.safetensors").stat().st_size


def test_the_first_edition_reads_the_picture_at_its_own_size(tiny_qwen: Callable[[str], Path]) -> None:
    newest, first = (QwenImageEdit(model=str(tiny_qwen(edition))) for edition in ("2511", "original"))
    assert text_tokens(newest, (1024, 1024)) == text_tokens(newest, (512, 512)) == 128 + 14 * 14
    assert text_tokens(first, (1024, 1024)) == 128 + 37 * 37

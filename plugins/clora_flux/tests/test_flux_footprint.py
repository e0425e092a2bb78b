"""The predicted footprint against a real forward pass of the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clora_flux.backbone import FluxKontext

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.api import Conditions, NetworkMemory, StepRng
from clora.toolkit.memory.measure import LiveBytes

SIDE, RANK = 256, 4


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_row_takes_what_was_predicted(tiny_flux: Path, checkpointing: bool) -> None:
    how = NetworkMemory("fp32", gradient_checkpointing=checkpointing)
    backbone = FluxKontext(str(tiny_flux), memory=how, max_sequence_length=64)
    predicted = backbone.footprint(RANK, (SIDE, SIDE))
    loaded = backbone.load(torch.device("cpu"))
    assert predicted.weights == sum(p.numel() * 4 for p in loaded.network.parameters())
    shapes = {name: backbone.shapes()[name] for name in backbone.targets()}
    adapted = AdaptedNetwork(loaded.network, backbone.targets())
    adapted.add("student", Adapter.fresh(shapes, RANK, RANK, StepRng(0)))
    config = loaded.network.config
    side = 2 * SIDE // backbone.multiple()
    latents = torch.zeros(1, config["in_channels"] // 4, side, side)
    words = torch.zeros(1, 64, config["joint_attention_dim"])
    pooled = torch.zeros(1, config["pooled_projection_dim"])
    conditions = Conditions(words, torch.ones(1, 64, dtype=torch.bool), latents, pooled)
    sigma = torch.full((1,), 0.5)
    with adapted.rows(["student"]), torch.no_grad():
        loaded.velocity(latents, sigma, conditions)  # the model keeps its rotary embeddings from now on
    with adapted.rows(["student"]), LiveBytes() as live:
        loss = loaded.velocity(latents, sigma, conditions).sum()
        assert live.now == pytest.approx(predicted.row, rel=0.1)
        loss.backward()
    assert live.peak == pytest.approx(predicted.row + predicted.backward, rel=0.1)

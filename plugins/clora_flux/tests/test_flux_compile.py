"""`memory: {compile: true}` on a tiny Kontext, whose two kinds of block compute differently."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from clora_flux.backbone import FluxKontext
from torch._dynamo.utils import counters

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.api import Conditions, NetworkMemory, StepRng


def gradients(component: FluxKontext, *mixes: tuple[str | None, ...]) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """For each mix of rows the velocity, the student's gradient of its square, and how many pieces were compiled."""
    loaded = component.load(torch.device("cpu"))
    shapes = {name: component.shapes()[name] for name in component.targets()}
    adapted = AdaptedNetwork(loaded.network, tuple(shapes))
    for name, rank in (("student", 3), ("teacher", 2)):
        made = Adapter.fresh(shapes, rank, rank, StepRng(0).named(name), trainable=name == "student")
        made.flat.copy_(0.1 * StepRng(1).normal(name, made.flat))
        adapted.add(name, made)
    student, results = adapted.adapters["student"], []
    for rows in mixes:
        count, rng, before = len(rows), StepRng(2), counters["stats"]["unique_graphs"]
        x, source = (rng.normal(name, torch.empty(count, 16, 2 * count, 6)) for name in ("x", "source"))
        text, pooled = rng.normal("text", torch.empty(count, 5 + count, 32)), torch.zeros(count, 32)
        held = Conditions(text, torch.ones(text.shape[:2], dtype=torch.bool), source, pooled)
        student.zero_grad()
        with adapted.rows(rows):
            velocity = loaded.velocity(x, torch.linspace(0.2, 0.9, count), held)
        velocity.square().mean().backward()
        assert student.flat_grad is not None
        pieces = counters["stats"]["unique_graphs"] - before
        results.append((velocity.detach(), student.flat_grad.clone(), pieces))
    return results


@pytest.mark.slow(9)
def test_one_pass_compiles_what_all_others_need(component: FluxKontext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "clora.toolkit.memory.compiling.BACKEND", "eager"
    )  # traced and cut into pieces, but not generated
    mixes = (("student", None, "teacher"), ("teacher", "student"), ("student", "student", None, "teacher"))
    how = NetworkMemory("fp32", compile=True, gradient_checkpointing=True)
    compiled = gradients(evolve(component, memory=how), *mixes)
    for mine, its in zip(compiled, gradients(component, *mixes), strict=True):
        torch.testing.assert_close(mine[:2], its[:2], atol=1e-6, rtol=1e-4)
    assert compiled[0][2] > 0
    assert [pieces for _, _, pieces in compiled[1:]] == [0, 0]

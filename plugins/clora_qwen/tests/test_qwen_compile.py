"""`memory: {compile: true}` on a tiny 2511, whose zero_cond_t stacks the noise levels of two batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attrs import evolve
from clora_qwen.backbone import QwenImageEdit
from torch._dynamo.utils import counters

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.api import Conditions, NetworkMemory, StepRng


class Trained:
    """The model with a student and a teacher on it."""

    def __init__(self, backbone: QwenImageEdit) -> None:
        self.loaded = backbone.load(torch.device("cpu"))
        shapes = {name: backbone.shapes()[name] for name in backbone.targets()}
        self.adapted = AdaptedNetwork(self.loaded.network, tuple(shapes))
        for name, rank in (("student", 3), ("teacher", 2)):
            made = Adapter.fresh(shapes, rank, rank, StepRng(0).named(name), trainable=name == "student")
            made.flat.copy_(0.05 * StepRng(1).normal(name, made.flat))
            self.adapted.add(name, made)
        self.student = self.adapted.adapters["student"]

    def velocity(self, rows: tuple[str | None, ...], side: int, words: int) -> torch.Tensor:
        """The velocity of rows of noise beside their sources, side x side latents, the last row's last word masked."""
        rng, count = StepRng(2), len(rows)
        x, source = (rng.normal(name, torch.empty(count, 16, side, side)) for name in ("x", "source"))
        mask = torch.ones(count, words, dtype=torch.bool)
        mask[-1, -1] = False
        held = Conditions(rng.normal("text", torch.empty(count, words, 32)), mask, source)
        with self.adapted.rows(rows):
            return self.loaded.velocity(x, torch.linspace(0.2, 0.9, count), held)

    def results(self, *rows: str | None, side: int = 6, words: int = 7) -> list[torch.Tensor]:
        """The velocity and the student's gradient of its square."""
        self.student.zero_grad()
        velocity = self.velocity(rows, side, words)
        velocity.square().mean().backward()
        assert self.student.flat_grad is not None
        return [velocity.detach(), self.student.flat_grad.clone()]


@pytest.mark.slow(10)
def test_one_cycle_compiles_what_all_others_need(
    tiny_qwen: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "clora.toolkit.memory.compiling.BACKEND", "eager"
    )  # traced and cut into pieces, but not generated
    backbone = QwenImageEdit(str(tiny_qwen("2511")), memory=NetworkMemory("fp32"))
    plain = Trained(backbone)

    def compiled(**keys: bool) -> Trained:
        return Trained(evolve(backbone, memory=NetworkMemory("fp32", compile=True, **keys)))

    def same(one: Trained, *rows: str | None, **sizes: int) -> None:
        for mine, its in zip(one.results(*rows, **sizes), plain.results(*rows, **sizes), strict=True):
            torch.testing.assert_close(mine, its, atol=1e-6, rtol=1e-4)

    one, before = compiled(), counters["stats"]["unique_graphs"]
    same(one, "student", None, "teacher")
    made = counters["stats"]["unique_graphs"]
    assert made > before
    twice = compiled(gradient_checkpointing=True)
    same(twice, "teacher", "student")
    same(one, "student", "student", None, "teacher", side=4, words=9)
    assert counters["stats"]["unique_graphs"] == made


def test_a_machine_without_a_compiler_is_told_so(
    tiny_qwen: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    component = QwenImageEdit(str(tiny_qwen("2511")), memory=NetworkMemory(compile=True))
    assert list(component.check()) == []
    monkeypatch.setattr("shutil.which", lambda name: None)
    (problem,) = component.check()
    assert problem.startswith("memory.compile: it needs a C++ compiler")

"""A Qwen-Image-Edit in few bits, ours or a package's: it trains, its caches are its own, a mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attrs import evolve
from clora_qwen.backbone import QwenImageEdit

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.api import Conditions, NetworkMemory, StepRng
from clora.cli import main

PAIRS = [
    ("fp8", "own"), ("int8", "own"), ("nf4", "own"), ("fp8", "torchao"), ("int8", "torchao"), ("nf4", "torchao"),
    ("int8", "bitsandbytes"), ("nf4", "bitsandbytes"),
]  # fmt: skip
ROOT = Path(__file__).parents[3]


@pytest.fixture
def backbone(tiny_qwen: Callable[[str], Path]) -> QwenImageEdit:
    return QwenImageEdit(model=str(tiny_qwen("2511")), side=64, memory=NetworkMemory("bf16"))


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(backbone: QwenImageEdit) -> tuple[torch.Tensor, float, float]:
    """The velocity of a network with a student on it, and the loss before and after one step of AdamW."""
    loaded = backbone.load(torch.device("cpu"))
    network = AdaptedNetwork(loaded.network, backbone.targets())
    shapes = {name: backbone.shapes()[name] for name in backbone.targets()}
    student = network.add("student", Adapter.fresh(shapes, 2, 2.0, StepRng(0)))
    student.flat.add_(0.05 * noise(student.flat.numel(), seed=0))
    flat = student.flat.detach().clone()
    words = loaded.encode_prompts(["make it blue"], torch.full((1, 3, 64, 64), 0.5))
    conditions = Conditions(words.text, words.mask, noise(1, 16, 8, 8, seed=1), words.pooled)
    goal = noise(1, 16, 8, 8, seed=2)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        with network.rows(["student"]):
            velocity = loaded.velocity(noise(1, 16, 8, 8, seed=3), torch.tensor([0.7]), conditions)
        return velocity, (velocity.float() - goal).square().mean()

    velocity, before = run()
    before.backward()
    assert student.flat_grad is not None
    parameter = torch.nn.Parameter(flat)
    parameter.grad = student.flat_grad.float()
    torch.optim.AdamW([parameter], lr=0.01).step()
    student.flat.copy_(parameter.detach())
    with torch.no_grad():
        after = run()[1]
    return velocity.detach().float(), float(before.detach()), float(after)


@pytest.mark.parametrize(("weights", "quantizer"), PAIRS)
def test_a_lora_learns_on_a_base_in_few_bits(backbone: QwenImageEdit, weights: str, quantizer: str) -> None:
    if quantizer != "own":
        pytest.importorskip(quantizer)
    whole, *_ = trained(backbone)
    how = NetworkMemory(weights, gradient_checkpointing=True, offload_blocks=1, quantizer=quantizer)  # type: ignore[arg-type]
    velocity, before, after = trained(evolve(backbone, memory=how))
    assert after < before
    off = (velocity - whole).norm() / whole.norm()
    assert 1e-3 < off < (0.3 if weights == "nf4" else 0.1)


def test_what_is_cached_of_one_quantizer_is_not_anothers(backbone: QwenImageEdit) -> None:
    digests = {
        evolve(backbone, memory=NetworkMemory("nf4", quantizer=quantizer)).digest()  # type: ignore[arg-type]
        for quantizer in ("own", "torchao", "bitsandbytes")
    }
    assert len(digests) == 3
    assert any(digest.endswith("-nf4-64-True") for digest in digests)  # our own is as it was before there were others


def test_validate_tells_it_with_its_line(
    backbone: QwenImageEdit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"extends: {ROOT}/recipes/collection.yaml\nbackbone:\n  use: qwen_image_edit\n  model: {backbone.model}\n"
        "  memory:\n    weights: fp8\n    quantizer: bitsandbytes\n"
    )
    assert main(["validate", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert "mine.yaml:2" in said
    assert "bitsandbytes makes no fp8 weights; write quantizer: own or torchao" in said
    recipe.write_text(recipe.read_text().replace("bitsandbytes", "bitsandbites"))
    assert main(["validate", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert "mine.yaml:7" in said
    assert "bitsandbytes" in said

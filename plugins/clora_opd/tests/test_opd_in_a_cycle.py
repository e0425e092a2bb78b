"""On-policy distillation with a network: who gets a gradient, packing; the recipe and its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clora_dmd.backward import Backward
from clora_opd.matching import OnPolicyDistillation
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.adapters.evaluator import Evaluator
from clora.api import Row, StepRng
from clora.cli import main
from clora.testing import example_step
from clora.training.forward_scheduler import run_together

RECIPE = Path(__file__).parents[3] / "recipes/opd.yaml"
ROWS = [Row("general"), Row("effect", "ink"), Row("effect", "wool"), Row("effect", "ink")]


class Backbone:
    """v = W x over channels, plus the mean of the words."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Module()
        self.network.mix = nn.Linear(2, 2)

    def velocity(self, x_sigma, sigma, conditions):
        words = conditions.text.mean((1, 2)).reshape(-1, 1, 1, 1)
        return self.network.mix(x_sigma.movedim(1, -1)).movedim(-1, 1) + words


def gradients(*, pack: bool) -> dict[str, torch.Tensor]:
    """What one step of rollout and loss leaves in every adapter, all of which could be trained."""
    backbone = Backbone()
    adapted = AdaptedNetwork(backbone.network, ["mix"])
    adapters = {}
    for number, name in enumerate(("ink", "wool", "student")):
        adapters[name] = Adapter.fresh({"mix": (2, 2)}, 1, 1.0, StepRng(0).named(name))
        adapters[name].flat.copy_(torch.randn(4, generator=torch.Generator().manual_seed(number)))
        adapted.add(name, adapters[name])
    step = example_step(ROWS, torch.zeros(4, 2, 3, 3), rng=StepRng(3), steps=4)
    loss = OnPolicyDistillation("backward", guidance_scale=4.5)
    parts = {"backward": Backward().simulate(step.named("simulations.backward"))}
    evaluator = Evaluator(backbone, adapted, pack=pack)
    _, terms = run_together(parts, {"opd": loss(step.named("student.losses.opd"))}, evaluator)
    terms["opd"].loss.backward()
    return {name: adapter.flat_grad for name, adapter in adapters.items() if adapter.flat_grad is not None}


def test_opd_trains_the_student_and_nothing_else_however_its_forwards_are_packed():
    packed, apart = gradients(pack=True), gradients(pack=False)
    assert list(packed) == ["ink", "wool", "student"]
    assert packed["student"].abs().min() > 0
    assert not packed["ink"].any()
    assert not packed["wool"].any()
    torch.testing.assert_close(packed["student"], apart["student"])


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("losses.opd.guidance_scale=101", "losses.opd.guidance_scale must be between 0 and 100, found 101"),
        ("losses.opd.guidance_scale=-1", "losses.opd.guidance_scale must be between 0 and 100, found -1"),
        ("losses.opd.weight=1e308", "losses.opd.weight must be 0 or between 1e-6 and 1,000,000"),
        ("losses.opd.simulation=bakward", "'bakward', not in `simulations`; did you mean 'backward'"),
        ("losses.opd.streams=[genral]", "'genral'; did you mean 'general'?"),
        ("losses.opd.match=velocty", "'velocty'; did you mean 'velocity'?"),
        ("losses.opd.guidance_scal=2", "'guidance_scal' in losses.opd; did you mean 'guidance_scale'?"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_recipe_is_told_with_the_nearest_right_word(assignment, told, capsys):
    assert main(["validate", str(RECIPE), "--set", assignment]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("--set losses.opd.")
    assert "Traceback" not in said


def test_a_recipe_whose_simulation_is_missing_is_told_at_its_line(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"extends: {RECIPE}\nlosses:\n  opd: {{simulation: target}}\n")
    assert main(["validate", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{recipe}:3:21: ")
    assert "asks for simulation 'target', not in `simulations`" in said

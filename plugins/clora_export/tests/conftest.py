"""A LoRA of two effects on the emoji base, which the tests of every layout write and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clora.api import LoraDelta
from clora.config.load import load_recipe
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def plan() -> Plan:
    sets = ["effects=[duotone_ocean, thermal]", "student.steps=5", "student.shift=3"]
    return make_plan(load_recipe(ROOT / "recipes/quickstart.yaml", (), sets, discover()), thorough=False)


@pytest.fixture(scope="module")
def deltas(plan: Plan) -> dict[str, LoraDelta]:
    """Random factors on every linear of the emoji base, ranks and strengths of two kinds."""
    random = torch.Generator().manual_seed(3)
    made = {}
    for i, (module, (inputs, outputs)) in enumerate(plan.recipe.backbone.shapes().items()):
        rank = 3 + i % 2
        a = torch.randn(rank, inputs, generator=random) * 0.1
        made[module] = LoraDelta(a, torch.randn(outputs, rank, generator=random) * 0.1, 0.5 + i % 2)
    return made

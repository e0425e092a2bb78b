"""A narrow network with two trained adapters and two frozen ones on it."""

from __future__ import annotations

import pytest
from narrow_qwen import IN_A_BLOCK, Backbone

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.diffusion.rng import StepRng


@pytest.fixture
def backbone() -> Backbone:
    return Backbone()


@pytest.fixture
def adapted(backbone: Backbone) -> AdaptedNetwork:
    targets = [f"transformer_blocks.{i}.{leaf}" for i in range(2) for leaf in IN_A_BLOCK]
    linears = {target: backbone.network.get_submodule(target) for target in targets}
    shapes = {target: (linear.in_features, linear.out_features) for target, linear in linears.items()}
    adapted = AdaptedNetwork(backbone.network, targets)
    for name, rank in [("student", 2), ("critic", 2), ("ink", 1), ("wax", 3)]:
        adapter = Adapter.fresh(shapes, rank, float(rank), StepRng(0).named(name), trainable=rank == 2)
        adapter.flat.copy_(0.3 * StepRng(0).normal(name, adapter.flat))
        adapted.add(name, adapter)
    return adapted

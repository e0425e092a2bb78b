"""A small Qwen-Image transformer with a student on it, kept in memory in whatever way a test asks for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from attrs import frozen
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.diffusion.rng import StepRng
from clora.toolkit.memory.fit import fit_network
from clora.toolkit.memory.settings import NetworkMemory

BLOCKS = ("transformer_blocks",)


def build(layers: int = 5) -> QwenImageTransformer2DModel:
    """The network with fresh weights, float32, 2 heads of 16."""
    torch.manual_seed(0)
    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=layers,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=24,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def forward(network: nn.Module, rows: int, side: int = 4, words: int = 5) -> torch.Tensor:
    """The network's answer to fixed pictures of side x side tokens beside their sources, and words."""
    rng = torch.Generator().manual_seed(1)
    dtype = next(network.parameters()).dtype
    return network(
        hidden_states=torch.randn(rows, 2 * side * side, 16, generator=rng).to(dtype),
        encoder_hidden_states=torch.randn(rows, words, 24, generator=rng).to(dtype),
        encoder_hidden_states_mask=torch.ones(rows, words, dtype=torch.bool),
        timestep=torch.linspace(0.2, 0.9, rows).to(dtype),
        img_shapes=[[(1, side, side), (1, side, side)]] * rows,
        return_dict=False,
    )[0]


@frozen
class Small:
    """A network that was made to fit, with a student and a teacher on it."""

    network: nn.Module
    adapted: AdaptedNetwork
    student: Adapter

    def answer(self, rows: int) -> torch.Tensor:
        """The network's answer with the adapters that are set."""
        return forward(self.network, rows)

    def sample(self, *names: str | None) -> torch.Tensor:
        """One forward without gradient, each row with its adapter."""
        with self.adapted.rows(names), torch.no_grad():
            return self.answer(len(names))

    def gradient(self, *names: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The answer and the student's gradient of its square, from a backward pass when no rows are set any more."""
        self.student.zero_grad()
        with self.adapted.rows(names):
            answer = self.answer(len(names))
        answer.square().mean().backward()
        assert self.student.flat_grad is not None
        return answer.detach(), self.student.flat_grad.clone()


@pytest.fixture(scope="session")
def small() -> Callable[..., Small]:
    """Makes a Small from the settings of `memory:`."""

    def make(layers: int = 5, **settings) -> Small:
        how = NetworkMemory(**{"weights": "fp32", **settings})
        network = fit_network(build(layers), BLOCKS, how, torch.device("cpu"))
        targets = {
            name: (part.in_features, part.out_features)
            for name, part in build(layers).named_modules()
            if isinstance(part, nn.Linear) and name.startswith("transformer_blocks.")
        }
        adapted = AdaptedNetwork(network, tuple(targets))
        student = Adapter.fresh(targets, 4, 4.0, StepRng(0))
        student.flat.copy_(0.1 * StepRng(1).normal("student", student.flat))
        adapted.add("student", student)
        teacher = Adapter.fresh(targets, 2, 2.0, StepRng(2), trainable=False)
        teacher.flat.copy_(0.1 * StepRng(3).normal("teacher", teacher.flat))
        adapted.add("teacher", teacher)
        return Small(network, adapted, student)

    return make

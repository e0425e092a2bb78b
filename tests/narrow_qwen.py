"""A Qwen-Image-Edit transformer of two narrow blocks as a backbone, and forwards that ask it."""

from __future__ import annotations

import torch
from diffusers import QwenImageTransformer2DModel

from clora.contracts.step import Forward
from clora.contracts.values import Conditions
from clora.diffusion.rng import StepRng

CHANNELS, SIDE, WIDTH = 4, 2, 6
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
IN_A_BLOCK = [f"attn.{leaf}" for leaf in ATTENTION] + ["img_mlp.net.2", "txt_mlp.net.2", "img_mod.1", "txt_mod.1"]


class Backbone:
    """A Qwen-Image-Edit transformer of two narrow blocks: the source picture is a second frame behind the noisy one."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = QwenImageTransformer2DModel(
            patch_size=1,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=8,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(2, 2, 4),
        ).eval()
        self.batches: list[int] = []

    def velocity(self, x_sigma: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        self.batches.append(len(x_sigma))
        tokens = torch.cat([x_sigma.flatten(2), conditions.source.flatten(2)], dim=2).transpose(1, 2)
        predicted = self.network(
            hidden_states=tokens,
            encoder_hidden_states=conditions.text,
            encoder_hidden_states_mask=conditions.mask,
            timestep=sigma,
            img_shapes=[[(1, SIDE, SIDE)] * 2] * len(x_sigma),
            return_dict=False,
        )[0]
        return predicted[:, : SIDE * SIDE].transpose(1, 2).reshape(x_sigma.shape)


def forward(name: str, *adapters: str | None, words: int, grad: bool = False) -> Forward:
    """Random inputs whose texts are `words` long."""
    rng, rows = StepRng(1).named(name), len(adapters)
    picture = torch.empty(rows, CHANNELS, SIDE, SIDE)
    conditions = Conditions(
        rng.normal("text", torch.empty(rows, words, WIDTH)),
        torch.ones(rows, words, dtype=torch.bool),
        rng.normal("source", picture),
    )
    return Forward("student", adapters, rng.normal("x", picture), rng.uniform("sigma", rows), conditions, grad)

"""What Qwen-Image-Edit takes in memory, from its configuration alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve

from clora.api import Blueprint, Footprint, library_errors, network_footprint

from .linears import complete
from .loaded import BLOCKS, MULTIPLE
from .pictures import CONDITION_SIDE

if TYPE_CHECKING:
    from .backbone import QwenImageEdit

PROMPT = 128  # tokens of a long prompt with the template's own
PATCH = 28  # pixels to a side of what the text encoder takes for a token


def text_tokens(backbone: QwenImageEdit, size: tuple[int, int]) -> int:
    """How long the text of a picture of (height, width) is, the picture's own tokens included."""
    height, width = (CONDITION_SIDE, CONDITION_SIDE) if backbone.edition != "original" else size
    return PROMPT + round(height / PATCH) * round(width / PATCH)


def footprint(backbone: QwenImageEdit, rank: int, size: tuple[int, int]) -> Footprint:
    """The transformer's bytes and a row's; the other parts' as they are stored, where the model is a folder."""
    config = backbone.config("transformer")
    sizes, dtype = complete(config), backbone.memory.dtype
    high, wide = size[0] // MULTIPLE, size[1] // MULTIPLE

    def build() -> torch.nn.Module:
        from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

        return QwenImageTransformer2DModel.from_config(dict(config))  # pyright: ignore[reportReturnType]

    def forward(network: torch.nn.Module) -> torch.Tensor:
        def empty(*shape: int) -> Any:
            return torch.empty(shape, device="meta", dtype=dtype)

        return network(
            hidden_states=empty(1, 2 * high * wide, sizes["in_channels"]),
            encoder_hidden_states=empty(1, text_tokens(backbone, size), sizes["joint_attention_dim"]),
            timestep=empty(1),
            img_shapes=[[(1, high, wide)] * 2],
            return_dict=False,
        )[0]

    shapes = backbone.shapes()
    targets = {name: shapes[name] for name in backbone.targets()}
    with library_errors(backbone.folder.where("transformer/config.json")):
        told = network_footprint(Blueprint(build, forward, BLOCKS, backbone.memory, targets, rank))
    return evolve(told, text=backbone.folder.stored("text_encoder"), pictures=backbone.folder.stored("vae"))

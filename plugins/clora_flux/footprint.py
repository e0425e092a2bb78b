"""What FLUX.1 Kontext takes in memory, from its configuration alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve

from clora.api import Blueprint, Footprint, library_errors, network_footprint

from .linears import complete
from .loaded import BLOCKS

if TYPE_CHECKING:
    from .backbone import FluxKontext


def footprint(backbone: FluxKontext, rank: int, size: tuple[int, int]) -> Footprint:
    """The transformer's bytes and a row's; the other parts' as they are stored, where the model is a folder."""
    config = backbone.config("transformer")
    sizes, dtype = complete(config), backbone.memory.dtype
    tokens = (size[0] // backbone.multiple()) * (size[1] // backbone.multiple())

    def build() -> torch.nn.Module:
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        return FluxTransformer2DModel.from_config(dict(config))  # pyright: ignore[reportReturnType]

    def forward(network: torch.nn.Module) -> torch.Tensor:
        def empty(*shape: int) -> Any:
            return torch.empty(shape, device="meta", dtype=dtype)

        words = backbone.max_sequence_length
        return network(
            hidden_states=empty(1, 2 * tokens, sizes["in_channels"]),
            timestep=empty(1),
            guidance=empty(1).float() if sizes["guidance_embeds"] else None,
            pooled_projections=empty(1, sizes["pooled_projection_dim"]),
            encoder_hidden_states=empty(1, words, sizes["joint_attention_dim"]),
            txt_ids=empty(words, 3),
            img_ids=empty(2 * tokens, 3),
            return_dict=False,
        )[0]

    shapes = backbone.shapes()
    targets = {name: shapes[name] for name in backbone.targets()}
    with library_errors(backbone.folder.where("transformer/config.json")):
        told = network_footprint(Blueprint(build, forward, BLOCKS, backbone.memory, targets, rank))
    text = backbone.folder.stored("text_encoder") + backbone.folder.stored("text_encoder_2")
    return evolve(told, text=text, pictures=backbone.folder.stored("vae"))

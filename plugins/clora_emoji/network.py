"""A small Qwen-Image edit transformer, built from diffusers' own class, and the one way to call it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

from clora.api import library_errors, load_whole, shown

from .model_config import BASE, CONFIG, GRID


@cache
def places() -> torch.Tensor:
    """Return where each token of a picture stands, [1, 16, 64]: eight cosines of its column, eight of its row.

    Rotary embeddings tell how far tokens are apart, not where they are, and a mirror or a turn depends on where. An
    earlier base without these channels left flips scrambled; it also had another optimiser (see the README's figures).
    """
    step = torch.arange(GRID, dtype=torch.float64) + 0.5
    waves = torch.cos(torch.pi * torch.arange(GRID, dtype=torch.float64)[:, None] * step / GRID)  # DCT-II, [8, 8]
    columns = waves[:, None, :].expand(GRID, GRID, GRID)
    rows = waves[:, :, None].expand(GRID, GRID, GRID)
    return torch.cat([columns, rows]).flatten(1)[None].float()


def build() -> QwenImageTransformer2DModel:
    """Return the network with fresh weights from torch's global generator: 3.67 M parameters, float32."""
    return QwenImageTransformer2DModel(**CONFIG)


def load(folder: Path = BASE, dtype: torch.dtype = torch.float32) -> QwenImageTransformer2DModel:
    """Return the trained network of a diffusers folder in ``dtype``, in evaluation mode.

    Raises FileNotFoundError when the folder holds no such model, CloraError when it cannot be loaded.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no base model in {folder}; clora_emoji.train_base makes one")
    how = {"torch_dtype": dtype, "local_files_only": True, "use_safetensors": True}
    with library_errors(f"{shown(folder)} cannot be loaded"):
        return load_whole(QwenImageTransformer2DModel, str(folder), how, shown(folder))


def velocity(
    transformer: torch.nn.Module,
    x_sigma: torch.Tensor,
    sigma: torch.Tensor,
    text: torch.Tensor,
    mask: torch.Tensor,
    source: torch.Tensor,
) -> torch.Tensor:
    """Return the predicted velocity ``eps - x0`` [B, 48, 8, 8] of x_sigma = (1 - sigma) * x0 + sigma * eps.

    x_sigma and source are latents [B, 48, 8, 8], sigma [B] in [0, 1], text [B, L, 128], mask bool [B, L].
    """
    # As Qwen-Image-Edit does it: the source picture is a second frame of tokens behind the noisy ones.
    place = places().to(x_sigma.device, x_sigma.dtype).expand(len(x_sigma), -1, -1)
    noisy, given = (torch.cat([latents.flatten(2), place], dim=1) for latents in (x_sigma, source))
    tokens = torch.cat([noisy, given], dim=2).transpose(1, 2)
    frames = [(1, GRID, GRID), (1, GRID, GRID)]
    predicted = transformer(
        hidden_states=tokens,
        encoder_hidden_states=text,
        encoder_hidden_states_mask=mask,
        timestep=sigma,
        img_shapes=[frames] * len(x_sigma),
        return_dict=False,
    )[0]
    return predicted[:, : GRID * GRID].transpose(1, 2).reshape(x_sigma.shape)

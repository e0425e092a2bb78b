"""The emoji world's backbone component: a Qwen-Image edit transformer of 3.7 M parameters that runs on a laptop."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from clora.api import (
    CloraError,
    Footprint,
    TokenShift,
    config_fields,
    files_problems,
    read_config,
    reason,
    shown,
    weights_misfits,
    weights_problems,
)

from .model_config import BASE, CHANNELS, FIELDS, GRID, SHIFT, misfits
from .words import MAX_TOKENS

if TYPE_CHECKING:
    import torch

    from .loaded import LoadedEmoji

#: the linears of a block that carry adapters, with (inputs, outputs) in multiples of the model's width
TAILS: Mapping[str, tuple[int, int]] = {
    **{f"attn.{name}": (1, 1) for name in ("to_q", "to_k", "to_v", "to_out.0")},
    **{f"attn.{name}": (1, 1) for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")},
    **{f"{stream}_mlp.net.0.proj": (1, 4) for stream in ("img", "txt")},
    **{f"{stream}_mlp.net.2": (4, 1) for stream in ("img", "txt")},
    **{f"{stream}_mod.1": (1, 6) for stream in ("img", "txt")},
}

#: what a token keeps in each block for the backward pass, in multiples of the model's width (measured at rank 16)
KEPT = 24


@frozen
class EmojiBackbone:
    """The embedded world's small Qwen-Image edit model."""

    weights: Path = BASE  # a diffusers folder with config.json and safetensors

    def check(self) -> Iterable[str]:
        """Problems with the weights' folder, before anything is loaded."""
        files = [self.weights / name for name in ("config.json", "diffusion_pytorch_model.safetensors")]
        missing = [f"{shown(file)} is missing" for file in files if not os.path.exists(file)]
        yield from (f"backbone emoji: {problem}" for problem in missing or self._misfits())

    def _misfits(self) -> Iterable[str]:
        """Small files that cannot be, a configuration of another network, and weights that do not fit it."""
        try:
            problems = files_problems(self.weights, self.weights) or weights_problems(self.weights)
            return problems or weights_misfits(self.weights, self.shapes())
        except CloraError as error:
            return [str(error)]

    def _config(self) -> Mapping[str, Any]:
        """config.json, every field of its type and in its range. Raises CloraError where one is not."""
        path = self.weights / "config.json"
        config = read_config(path, self.weights)
        config_fields.check_fields(config, FIELDS, shown(path))
        for problem in misfits(config):
            raise CloraError(f"{shown(path)}: {problem}")
        return config

    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """(in, out) of the 14 linears of every block, from config.json alone."""
        config = self._config()
        width = config["num_attention_heads"] * config["attention_head_dim"]
        return {
            f"transformer_blocks.{block}.{tail}": (inputs * width, outputs * width)
            for block in range(config["num_layers"])
            for tail, (inputs, outputs) in TAILS.items()
        }

    def targets(self) -> tuple[str, ...]:
        """The dotted names of the linears that carry adapters."""
        return tuple(self.shapes())

    def weight_files(self) -> Path:
        """The diffusers folder itself."""
        return self.weights

    def local_weights(self) -> Path:
        """The same folder: it is always here."""
        return self.weights

    def footprint(self, rank: int, size: tuple[int, int]) -> Footprint:
        """Bytes of the weights in float32, and of a row of MAX_TOKENS words with two pictures; no weights are read."""
        config = self._config()
        width = config["num_attention_heads"] * config["attention_head_dim"]
        tokens = MAX_TOKENS + 2 * GRID**2
        stored = sum(file.stat().st_size for file in self.weights.glob("*.safetensors") if file.is_file())
        return Footprint(2 * stored, 4 * KEPT * width * config["num_layers"] * tokens)  # stored in bfloat16

    def shift_for(self, size: tuple[int, int] | None) -> TokenShift:
        """The measured one: its pictures are always 32 x 32."""
        return TokenShift(SHIFT, f"{GRID**2} tokens: measured for the emoji model")

    def feature_width(self) -> int:
        """That of a token within the transformer."""
        config = self._config()
        return config["num_attention_heads"] * config["attention_head_dim"]

    def latent_channels(self) -> int:
        """Those of 4 x 4 pixels."""
        return CHANNELS

    def digest(self) -> str:
        """A hash of configuration and weights."""
        hasher = hashlib.blake2b(digest_size=8)
        for name in ("config.json", "diffusion_pytorch_model.safetensors"):
            try:
                hasher.update((self.weights / name).read_bytes())
            except OSError as error:
                raise CloraError(f"{shown(self.weights / name)}: cannot be read: {reason(error)}") from None
        return hasher.hexdigest()

    def load(self, device: torch.device) -> LoadedEmoji:
        """The model in float32 on a device."""
        from . import network
        from .loaded import LoadedEmoji

        return LoadedEmoji(network.load(self.weights), device)

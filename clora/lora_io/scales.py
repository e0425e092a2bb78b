"""The strength of every LoRA in a file: scale = alpha / rank, wherever the file keeps its alpha."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, sqrt
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import frozen

from clora.errors import shown
from clora.lora_io.configs import (
    ALPHA_KEY,
    DIM_KEY,
    AlphaConfig,
    KohyaNumbers,
    header_config,
    kohya_numbers,
    peft_config,
)
from clora.lora_io.contents import Contents
from clora.lora_io.header import Header, LoraFileError, brief, named
from clora.lora_io.kinds import Entry

#: whose word a file's strength is: the tensors' and configuration's (None is the same, undecided where that is
#: doubtful), alpha / ss_network_dim as the header has them, or this number for every linear
StrengthFrom: TypeAlias = "float | Literal['file', 'header'] | None"


@frozen
class Strength:
    """A linear's scale, and the alpha it comes from with its place.

    tensor, header (diffusers' key), config (PEFT's), kohya (the header's ss_network_...), bank (a number given), or
    none (scale 1).
    """

    scale: float
    alpha: float | None
    source: Literal["tensor", "header", "config", "kohya", "bank", "none"]


def strengths(
    path: Path,
    header: Header,
    contents: Contents,
    alphas: Mapping[str, float],
    strength: StrengthFrom = None,
) -> dict[str, Strength]:
    """The strength of every linear: alpha from its tensor, else from the configuration, else the rank (scale 1).

    `alphas` {tensor name: number} are the alpha tensors' values; `strength` says whose word counts. Raises
    LoraFileError for a configuration that cannot be understood: a wrong strength trains on the wrong teacher without a
    sound.
    """
    for name, alpha in alphas.items():
        if not isfinite(alpha):
            raise LoraFileError(f"{shown(path)}: {named(name)} is {alpha}, not a number to scale by")
    if isinstance(strength, float):
        return {module: Strength(strength, None, "bank") for module in contents.entries}
    if strength == "header":
        kohya = kohya_numbers(header)
        return {m: _of_header(path, m, entry, alphas, kohya) for m, entry in contents.entries.items()}
    of_header = header_config(path, header)
    beside = peft_config(path) if any(entry.peft for entry in contents.entries.values()) else None
    return {
        module: _strength(module, entry, alphas, beside if entry.peft and beside else of_header)
        for module, entry in contents.entries.items()
    }


def of_header(entry: Entry, alphas: Mapping[str, float], kohya: KohyaNumbers) -> float | None:
    """Alpha / ss_network_dim, as LyCORIS trains: alpha is the linear's tensor, else ss_network_alpha.

    Without ss_network_dim the rank divides. None where the header says nothing.
    """
    alpha = kohya.alpha if entry.alpha is None else alphas[entry.alpha]
    dim = kohya.dim or entry.rank
    if alpha is None or not dim or (kohya.dim is None and kohya.alpha is None):
        return None
    return alpha / dim


def _of_header(path: Path, module: str, entry: Entry, alphas: Mapping[str, float], kohya: KohyaNumbers) -> Strength:
    scale = of_header(entry, alphas, kohya)
    if scale is None:
        told = f"its header has no {DIM_KEY} and {ALPHA_KEY} that would tell that of {brief(module)}"
        raise LoraFileError(f"{shown(path)}: the bank says `strength: header`, but {told}")
    return Strength(scale, kohya.alpha if entry.alpha is None else alphas[entry.alpha], "kohya")


def _strength(module: str, entry: Entry, alphas: Mapping[str, float], config: AlphaConfig | None) -> Strength:
    if config is not None and config.dora and entry.magnitude is None:
        raise LoraFileError(f"{config.where}: says use_dora, but {brief(module)} has no magnitude")
    if entry.alpha is not None:
        alpha = alphas[entry.alpha]
        return Strength(alpha / entry.rank, alpha, "tensor") if entry.rank else Strength(1.0, None, "none")
    if config is None or entry.kind != "lora":
        return Strength(1.0, None, "none")
    alpha = config.of(entry.said or module)
    return Strength(alpha / (sqrt(entry.rank) if config.rslora else entry.rank), alpha, config.source)

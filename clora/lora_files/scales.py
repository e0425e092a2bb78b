"""The strength of every LoRA in a file: scale = alpha / rank, wherever the file keeps its alpha."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

from clora.lora_files.contents import Contents
from clora.lora_files.header import Header, LoraFileError
from clora.lora_files.kinds import Entry

#: diffusers' key in the header, one JSON text
METADATA_KEY = "lora_adapter_metadata"
MAX_CONFIG_BYTES = 4 << 20


@frozen
class AlphaConfig:
    """The alphas that PEFT's configuration gives: one for all, some linears' own, and whether sqrt(r) divides."""

    where: str
    source: Literal["header", "config"]
    alpha: float
    patterns: Mapping[str, float] = field(factory=dict)
    rslora: bool = False
    dora: bool = False

    def of(self, module: str) -> float:
        """The alpha of one linear: the first pattern that is its name or, without ^, the end of it, as PEFT has it."""
        for pattern, alpha in self.patterns.items():
            if module == pattern.removeprefix("^") or module.endswith(f".{pattern}"):
                return alpha
        return self.alpha


@frozen
class Strength:
    """A linear's scale, and the alpha it comes from with its place: tensor, header, config, or none (scale 1)."""

    scale: float
    alpha: float | None
    source: Literal["tensor", "header", "config", "none"]


def strengths(path: Path, header: Header, contents: Contents, alphas: Mapping[str, float]) -> dict[str, Strength]:
    """The strength of every linear: alpha from its tensor, else from the configuration, else the rank (scale 1).

    `alphas` {tensor name: number} are the alpha tensors' values. Raises LoraFileError for a configuration that cannot
    be understood: a wrong strength trains on the wrong teacher without a sound.
    """
    header_config = _header_config(path, header)
    peft_config = _peft_config(path) if any(entry.peft for entry in contents.entries.values()) else None
    return {
        module: _strength(path, module, entry, alphas, peft_config if entry.peft and peft_config else header_config)
        for module, entry in contents.entries.items()
    }


def _strength(
    path: Path, module: str, entry: Entry, alphas: Mapping[str, float], config: AlphaConfig | None
) -> Strength:
    if config is not None and config.dora and entry.magnitude is None:
        raise LoraFileError(f"{config.where}: says use_dora, but {module} has no magnitude")
    if entry.alpha is not None:
        alpha = alphas[entry.alpha]
        if not isfinite(alpha):
            raise LoraFileError(f"{path}: {entry.alpha!r} is {alpha}, not a number to scale by")
        return Strength(alpha / entry.rank, alpha, "tensor") if entry.rank else Strength(1.0, None, "none")
    if config is None or entry.kind != "lora":
        return Strength(1.0, None, "none")
    alpha = config.of(entry.said or module)
    return Strength(alpha / (sqrt(entry.rank) if config.rslora else entry.rank), alpha, config.source)


def _header_config(path: Path, header: Header) -> AlphaConfig | None:
    """What diffusers wrote into the header, or None; its keys begin with the component's name."""
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        return None
    where = f"{path}: the header's {METADATA_KEY}"
    tree = _map(where, text)
    if "lora_alpha" in tree:  # a model saved without its pipeline writes no component's name
        return _config(where, "header", tree)
    mine = {key.removeprefix("transformer."): value for key, value in tree.items() if key.startswith("transformer.")}
    return _config(where, "header", mine) if mine else None


def _peft_config(path: Path) -> AlphaConfig | None:
    """PEFT's adapter_config.json beside the file, or None."""
    beside = path.with_name("adapter_config.json")
    if not beside.is_file():
        return None
    if beside.stat().st_size > MAX_CONFIG_BYTES:
        raise LoraFileError(f"{beside}: too large for an adapter's configuration")
    try:
        return _config(str(beside), "config", _map(str(beside), beside.read_text(encoding="utf-8")))
    except UnicodeDecodeError as error:
        raise LoraFileError(f"{beside}: not a text in UTF-8") from error


def _map(where: str, text: str) -> dict[str, Any]:
    try:
        tree = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise LoraFileError(f"{where} is not JSON") from error
    if not isinstance(tree, dict):
        raise LoraFileError(f"{where} is not a map")
    return tree


def _config(where: str, source: Literal["header", "config"], tree: Mapping[str, Any]) -> AlphaConfig:
    """PEFT's LoraConfig, as far as it decides the strength."""
    kind = tree.get("peft_type", "LORA")
    if kind != "LORA":
        raise LoraFileError(f"{where}: is of PEFT's type {kind!r}; of PEFT's files only LORA can be read")
    patterns = tree.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise LoraFileError(f"{where}: alpha_pattern is not a map")
    return AlphaConfig(
        where,
        source,
        _number(where, "lora_alpha", tree.get("lora_alpha")),
        {_literal(where, key): _number(where, f"alpha_pattern of {key}", alpha) for key, alpha in patterns.items()},
        bool(tree.get("use_rslora")),
        bool(tree.get("use_dora")),
    )


def _number(where: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise LoraFileError(f"{where}: {name} is {value!r}, not a number")
    return float(value)


def _literal(where: str, pattern: str) -> str:
    """A pattern that is a plain name; PEFT allows regular expressions, which a file may not have us run."""
    name = pattern.removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"\^?[\w.-]+", name):
        raise LoraFileError(f"{where}: alpha_pattern {pattern!r} is no plain name of a linear")
    return name

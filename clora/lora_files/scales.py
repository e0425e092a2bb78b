"""The strength of every LoRA in a file: scale = alpha / rank, wherever the file keeps its alpha."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from attrs import field, frozen

from clora.lora_files.contents import Contents, Pair
from clora.lora_files.header import Header, LoraFileError

#: diffusers' key in the header, one JSON text
METADATA_KEY = "lora_adapter_metadata"
MAX_CONFIG_BYTES = 4 << 20


@frozen
class AlphaConfig:
    """The alphas that PEFT's configuration gives: one for all, some linears' own, and whether sqrt(r) divides."""

    where: str
    alpha: float
    patterns: Mapping[str, float] = field(factory=dict)
    rslora: bool = False

    def of(self, module: str) -> float:
        """The alpha of one linear: the first pattern that is its name or, without ^, the end of it, as PEFT has it."""
        for pattern, alpha in self.patterns.items():
            if module == pattern.removeprefix("^") or module.endswith(f".{pattern}"):
                return alpha
        return self.alpha


def scales(path: Path, header: Header, contents: Contents, alphas: Mapping[str, float]) -> dict[str, float]:
    """alpha / rank of every linear: alpha from its tensor, else from the configuration, else the rank itself (scale 1).

    `alphas` {tensor name: number} are the alpha tensors' values. Raises LoraFileError for a configuration that cannot
    be understood: a wrong strength trains on the wrong teacher without a sound.
    """
    header_config = _header_config(path, header)
    peft_config = _peft_config(path) if any(pair.peft for pair in contents.pairs.values()) else None
    return {
        module: _scale(path, module, pair, alphas, peft_config if pair.peft and peft_config else header_config)
        for module, pair in contents.pairs.items()
    }


def _scale(path: Path, module: str, pair: Pair, alphas: Mapping[str, float], config: AlphaConfig | None) -> float:
    if pair.alpha is not None:
        if not isfinite(alphas[pair.alpha]):
            raise LoraFileError(f"{path}: {pair.alpha!r} is {alphas[pair.alpha]}, not a number to scale by")
        return alphas[pair.alpha] / pair.rank
    if config is None:
        return 1.0
    return config.of(module) / (sqrt(pair.rank) if config.rslora else pair.rank)


def _header_config(path: Path, header: Header) -> AlphaConfig | None:
    """What diffusers wrote into the header, or None; its keys begin with the component's name."""
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        return None
    where = f"{path}: the header's {METADATA_KEY}"
    tree = _map(where, text)
    if "lora_alpha" in tree:  # a model saved without its pipeline writes no component's name
        return _config(where, tree)
    mine = {key.removeprefix("transformer."): value for key, value in tree.items() if key.startswith("transformer.")}
    return _config(where, mine) if mine else None


def _peft_config(path: Path) -> AlphaConfig | None:
    """PEFT's adapter_config.json beside the file, or None."""
    beside = path.with_name("adapter_config.json")
    if not beside.is_file():
        return None
    if beside.stat().st_size > MAX_CONFIG_BYTES:
        raise LoraFileError(f"{beside}: too large for an adapter's configuration")
    try:
        return _config(str(beside), _map(str(beside), beside.read_text(encoding="utf-8")))
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


def _config(where: str, tree: Mapping[str, Any]) -> AlphaConfig:
    """PEFT's LoraConfig, as far as it decides the strength."""
    if tree.get("use_dora"):
        raise LoraFileError(f"{where}: uses DoRA, which is not supported yet")
    patterns = tree.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise LoraFileError(f"{where}: alpha_pattern is not a map")
    return AlphaConfig(
        where,
        _number(where, "lora_alpha", tree.get("lora_alpha")),
        {_literal(where, key): _number(where, f"alpha_pattern of {key}", alpha) for key, alpha in patterns.items()},
        bool(tree.get("use_rslora")),
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

"""What a file says of its alphas in words: diffusers' and kohya's keys in the header, PEFT's adapter_config.json.

All of it is a stranger's text: bounded before it is parsed, and every field that is read is checked for its type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from attrs import Factory, field, frozen

from clora.errors import CloraError, quoted, shown
from clora.files.untrusted_json import kind_of, parse_json, read_map
from clora.lora_io.header import Header, LoraFileError, named

#: diffusers' key in the header, one JSON text
METADATA_KEY = "lora_adapter_metadata"
CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 4 << 20
#: patterns of one configuration: a file has at most some for every linear
MAX_PATTERNS = 10_000
#: kohya's keys in the header, and the longest number that stands there
DIM_KEY, ALPHA_KEY, MAX_NUMBER = "ss_network_dim", "ss_network_alpha", 40


@frozen
class AlphaConfig:
    """The alphas that PEFT's configuration gives: one for all, some linears' own, and whether sqrt(r) divides."""

    where: str
    source: Literal["header", "config"]
    alpha: float
    patterns: Mapping[str, float] = field(factory=dict)
    rslora: bool = False
    dora: bool = False
    _order: Mapping[str, int] = field(
        init=False, default=Factory(lambda self: {p: i for i, p in enumerate(self.patterns)}, takes_self=True)
    )

    def of(self, module: str) -> float:
        """The alpha of one linear: the first pattern that is its name or, without ^, the end of it, as PEFT has it."""
        ends = [module[at + 1 :] for at, letter in enumerate(module) if letter == "."]
        found = [name for name in (f"^{module}", module, *ends) if name in self._order]
        return self.patterns[min(found, key=self._order.__getitem__)] if found else self.alpha


@frozen
class KohyaNumbers:
    """`ss_network_dim` and `ss_network_alpha` of the header; None where one is missing or no number ("Dynamic")."""

    dim: float | None
    alpha: float | None


def kohya_numbers(header: Header) -> KohyaNumbers:
    """What kohya's scripts, musubi and LyCORIS write into the header of what they train."""
    dim, alpha = (_plain_number(header.metadata.get(key, "")) for key in (DIM_KEY, ALPHA_KEY))
    return KohyaNumbers(dim if dim is not None and dim > 0 else None, alpha)


def _plain_number(text: str) -> float | None:
    if len(text) > MAX_NUMBER or not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return None
    value = float(text)
    return value if isfinite(value) else None


def header_config(path: Path, header: Header) -> AlphaConfig | None:
    """What diffusers wrote into the header, or None; its keys begin with the component's name."""
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        return None
    where = f"{shown(path)}: the header's {METADATA_KEY}"
    if len(text) > MAX_CONFIG_BYTES:
        raise LoraFileError(f"{where}: too large for an adapter's configuration")
    try:
        tree = parse_json(text, where)
    except CloraError as error:
        raise LoraFileError(str(error)) from None
    if not isinstance(tree, dict):
        raise LoraFileError(f"{where} is not a map but {kind_of(tree)}")
    if "lora_alpha" in tree:  # a model saved without its pipeline writes no component's name
        return _config(where, "header", tree)
    mine = {key.removeprefix("transformer."): value for key, value in tree.items() if key.startswith("transformer.")}
    return _config(where, "header", mine) if mine else None


def peft_config(path: Path) -> AlphaConfig | None:
    """PEFT's adapter_config.json beside the file, or None. Raises LoraFileError, without its content, for a bad one."""
    beside = path.with_name(CONFIG)
    if beside.is_symlink() and not _within(beside):
        raise LoraFileError(
            f"{shown(beside)}: is a link out of its folder and is not read; copy it beside the LoRA file, or move it "
            "away where it is none of this LoRA's"
        )
    if not beside.exists():
        return None
    try:
        return _config(shown(beside), "config", read_map(beside, MAX_CONFIG_BYTES))
    except LoraFileError:
        raise
    except CloraError as error:
        raise LoraFileError(str(error)) from None


def _within(link: Path) -> bool:
    """Whether a link leads into its own folder, or from a snapshot of the Hugging Face cache to the repository's blobs.

    There .../models--x--y/snapshots/COMMIT/[folders/]file leads to .../models--x--y/blobs/HASH.
    """
    try:
        folder, target = link.parent.resolve(), link.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return False
    if target.is_relative_to(folder):
        return True
    snapshots = [up for up in folder.parents if up.name == "snapshots"]
    return any(target.parent == up.parent / "blobs" for up in snapshots)


def _config(where: str, source: Literal["header", "config"], tree: Mapping[str, Any]) -> AlphaConfig:
    """PEFT's LoraConfig, as far as it decides the strength."""
    kind = tree.get("peft_type", "LORA")
    if kind != "LORA":
        raise LoraFileError(f"{where}: is of PEFT's type {quoted(kind)}; of PEFT's files only LORA can be read")
    _map(where, tree, "rank_pattern")  # ranks are the tensors' own
    alphas = _map(where, tree, "alpha_pattern")
    return AlphaConfig(
        where,
        source,
        _number(where, "lora_alpha", tree.get("lora_alpha")),
        {_literal(where, key): alpha for key, alpha in alphas.items()},
        _truth(where, tree, "use_rslora"),
        _truth(where, tree, "use_dora"),
    )


def _map(where: str, tree: Mapping[str, Any], key: str) -> dict[str, float]:
    """{pattern: number} of a configuration, empty where it is missing."""
    found = tree.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise LoraFileError(f"{where}: {key} is not a map but {kind_of(found)}")
    if len(found) > MAX_PATTERNS:
        raise LoraFileError(f"{where}: {key} has {len(found):,} patterns; at most {MAX_PATTERNS:,} are read")
    return {pattern: _number(where, f"{key} of {named(pattern)}", value) for pattern, value in found.items()}


def _number(where: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise LoraFileError(f"{where}: {name} is {quoted(value)}, not a number")
    return float(value)


def _truth(where: str, tree: Mapping[str, Any], key: str) -> bool:
    value = tree.get(key)
    if value is not None and not isinstance(value, bool):
        raise LoraFileError(f"{where}: {key} is {quoted(value)}, neither true nor false")
    return bool(value)


def _literal(where: str, pattern: str) -> str:
    """A pattern that is a plain name; PEFT allows regular expressions, which a file may not have us run."""
    name = pattern.removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"\^?[\w.-]+", name):
        raise LoraFileError(f"{where}: alpha_pattern {named(pattern)} is no plain name of a linear")
    return name

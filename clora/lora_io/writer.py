"""The layouts that are written, diffusers', ComfyUI's, PEFT's and registered ones: the strength is in B, so no reader
gets it wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clora.contracts.lora_layout import LoraPart
from clora.errors import quoted, shown
from clora.files.atomic import write_atomic_with
from clora.lora_io.configs import METADATA_KEY
from clora.lora_io.header import LoraFileError, named
from clora.lora_io.layouts import layout_named
from clora.lora_io.reader import LoraDelta

if TYPE_CHECKING:
    import torch

_PREFIX = {"diffusers": "transformer.", "comfyui": "diffusion_model.", "peft": "base_model.model."}


def write_lora(
    path: Path,
    deltas: Mapping[str, LoraDelta],
    metadata: Mapping[str, str] | None = None,
    *,
    layout: str = "diffusers",
    dtype: torch.dtype | None = None,
) -> None:
    """Write {module: delta} as one safetensors file, in one step: a reader never finds a torn one.

    The scale goes into B (alpha == rank), computed in float32; factors are stored as `dtype` or as they are. `metadata`
    is added to the header. `layout` is diffusers, comfyui, peft or a registered one that `WritesTensorNames`. Raises
    LoraFileError for NaN, infinity, a number beyond the type's range or metadata that is not text, and CloraError where
    the disk refuses or the layout cannot be written.
    """
    if not deltas:
        raise LoraFileError(f"{shown(path)}: there are no LoRA weights to write")
    tensors = _tensors(path, deltas, layout, dtype)
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise LoraFileError(
            f"{shown(path)}: not written: {len(broken)} tensors, first {named(broken[0])}, hold NaN or infinity"
        )
    header = _header(path, deltas, metadata or {}, layout)
    write_atomic_with(path, lambda temporary: _save(tensors, temporary, header))


def _tensors(
    path: Path, deltas: Mapping[str, LoraDelta], layout: str, dtype: torch.dtype | None
) -> dict[str, torch.Tensor]:
    """Every tensor by its name. Raises LoraFileError where a registered layout has one name for two of them."""
    import torch

    name_of = _names(layout)
    tensors: dict[str, torch.Tensor] = {}
    for module, delta in deltas.items():
        into = dtype or delta.a.dtype
        a, b = delta.a.float(), delta.b.float() * delta.scale
        if delta.kernel:  # as PEFT has them: a convolution like the base's, and one of 1 x 1
            a, b = a.unflatten(1, (-1, *delta.kernel)), b[:, :, None, None]
        parts: dict[LoraPart, torch.Tensor] = {
            "a": _stored(a, into),
            "b": _stored(b, into),
            "alpha": torch.tensor(float(delta.a.shape[0])),
        }
        for part, tensor in parts.items():
            name = name_of(module, part)
            if name in tensors:
                raise LoraFileError(
                    f"{shown(path)}: not written: the layout {quoted(layout)} calls two tensors {named(name)}"
                )
            if name is not None:
                tensors[name] = tensor
    return tensors


def _names(layout: str) -> Callable[[str, LoraPart], str | None]:
    """What a layout calls a linear's parts; None for one that it leaves out. Raises CloraError for no such layout."""
    if layout not in _PREFIX:
        return layout_named(layout, _PREFIX).tensor_name
    prefix, factors = _PREFIX[layout], {"a": "lora_A", "b": "lora_B"}
    return lambda linear, part: f"{prefix}{linear}.{factors[part]}.weight" if part in factors else None


def _save(tensors: dict[str, torch.Tensor], path: Path, header: dict[str, str]) -> None:
    """Save with the permissions that any new file gets; safetensors alone lets only the owner read."""
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata=header)
    _sort_header(path)
    path.chmod(mode)


def _sort_header(path: Path) -> None:
    """Put the metadata in order: safetensors writes it in another one each time, and equal LoRAs are equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(ordered) <= size:
            file.seek(8)
            file.write(ordered.ljust(size))


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A contiguous copy on the CPU that shares storage with nothing, as the format demands."""
    return tensor.detach().to("cpu", dtype, copy=True).contiguous()


def _header(path: Path, deltas: Mapping[str, LoraDelta], metadata: Mapping[str, str], layout: str) -> dict[str, str]:
    wrong = [key for key, value in metadata.items() if not isinstance(key, str) or not isinstance(value, str)]
    if wrong:
        raise LoraFileError(f"{shown(path)}: not written: metadata {quoted(wrong[0])} is not text")
    header = {"format": "pt", **metadata}
    if layout == "diffusers":
        header[METADATA_KEY] = json.dumps(_adapter_metadata(deltas), sort_keys=True)
    return header


def _adapter_metadata(deltas: Mapping[str, LoraDelta]) -> dict[str, object]:
    """What diffusers builds PEFT's LoraConfig from; the most frequent rank is `r`, others are patterns.

    A pattern begins with ^ because PEFT would otherwise let it match the end of a longer name too.
    """
    ranks = {module: delta.a.shape[0] for module, delta in deltas.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    other = {f"^{module}": r for module, r in ranks.items() if r != rank}
    config = {
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": sorted(deltas),
        "use_dora": False,
        "use_rslora": False,
        "lora_bias": False,
    }
    return {f"transformer.{key}": value for key, value in config.items()}

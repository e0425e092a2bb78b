"""How large a base's own weights are, from samples of its files: what a teacher's change is measured against."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import isfinite, sqrt
from pathlib import Path

from attrs import frozen

from clora.lora_io.header import ITEM_BYTES, LoraFileError, TensorInfo, inspect_header

#: of a base so many linears, evenly spread, are sampled, and of each so many numbers: a 40 GB base costs 128 MB
LINEARS, NUMBERS = 32, 1 << 20
#: files of one folder; the largest bases have some dozens
MOST_FILES = 200
_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})


@frozen
class BaseWeights:
    """The type that a base is stored in, None where that is not known, and its weights' root mean square."""

    dtype: str | None = None
    rms: float | None = None


def base_weights(folder: Path | None, linears: Iterable[str]) -> BaseWeights:
    """What the safetensors files of a folder tell of the weights `LINEAR.weight`; nothing of None or a broken file."""
    if folder is None:
        return BaseWeights()
    try:
        files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())[:MOST_FILES]
        states = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        return _sampled(states, tuple(linears))
    except (OSError, LoraFileError):  # the backbone's own check tells what is wrong with it
        return BaseWeights()


@lru_cache(maxsize=8)
def _sampled(states: tuple[tuple[Path, int, int], ...], linears: tuple[str, ...]) -> BaseWeights:
    wanted = {f"{linear}.weight" for linear in linears}
    found: list[tuple[Path, str, TensorInfo]] = []
    for file, _, _ in states:
        tensors = inspect_header(file).tensors
        found += [(file, name, t) for name, t in tensors.items() if name in wanted and _is_matrix(t)]
    if not found:
        return BaseWeights()
    found.sort(key=lambda each: each[1])
    some = [found[i * len(found) // min(LINEARS, len(found))] for i in range(min(LINEARS, len(found)))]
    squares, count = 0.0, 0
    for file, name, tensor in some:
        total, numbers = _squares(file, name, tensor)
        squares, count = squares + total, count + numbers
    rms = sqrt(squares / count) if isfinite(squares) and squares > 0 else None
    narrowest = min((tensor.dtype for _, _, tensor in found), key=lambda dtype: (dtype != "F16", ITEM_BYTES[dtype]))
    return BaseWeights(narrowest, rms)


def _is_matrix(tensor: TensorInfo) -> bool:
    return tensor.dtype in _PLAIN and len(tensor.shape) == 2 and 0 not in tensor.shape


def _squares(file: Path, name: str, tensor: TensorInfo) -> tuple[float, int]:
    """The sum of squares of a weight's first rows, and how many numbers they have."""
    from clora.lora_io.reader import opened

    rows = max(1, min(tensor.shape[0], NUMBERS // tensor.shape[1]))
    with opened(file) as weights:
        part = weights.get_slice(name)[:rows]
    return float(part.double().square().sum()), part.numel()

"""The header of a safetensors file, checked in full before a tensor is touched.

A safetensors file is 8 bytes of length, that much JSON, then the tensors' bytes. Whatever is wrong with a file (a
pickle, a broken download, offsets that lie) is found here and told in one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from attrs import frozen

from clora.errors import CloraError

#: the longest header that is read; a LoRA with 2,000 tensors has some 300 kB
MAX_HEADER_BYTES = 32 << 20
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


class LoraFileError(CloraError, ValueError):
    """A LoRA file that cannot be used; the message names the file and says why in one line."""


@frozen
class TensorInfo:
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@frozen
class Header:
    """A file's tensors and its metadata."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


def inspect_header(path: Path) -> Header:
    """Read and check the header of a safetensors file without reading a tensor.

    Raises LoraFileError for a file that is missing, no safetensors (a pickle above all), truncated, or whose tensors
    overlap, leave holes or do not fit their shapes.
    """
    try:
        if not path.is_file():
            raise LoraFileError(f"{path}: there is no such file")
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = _header_length(path, first, size)
            raw = file.read(length)
    except OSError as error:
        raise LoraFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    tree = _parse(path, raw)
    metadata = tree.pop("__metadata__", {})
    if not _is_text_map(metadata):
        raise LoraFileError(f"{path}: the header's __metadata__ is not a map of texts")
    tensors = {name: _tensor(path, name, entry) for name, entry in tree.items()}
    _check_layout(path, tensors, size - 8 - length)
    return Header(tensors, metadata)


def _header_length(path: Path, first: bytes, size: int) -> int:
    """The header's length in bytes, or the reason why this is no safetensors file."""
    length = int.from_bytes(first, "little")
    if len(first) == 8 and length <= min(MAX_HEADER_BYTES, size - 8):
        return length
    # only now: the length of a proper header may look like the first bytes of something else
    if first.startswith(b"PK\x03\x04") or (first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        raise LoraFileError(
            f"{path}: this is a pickle, which can run code when it is loaded; only safetensors files are read, "
            "so convert it where you trust it"
        )
    if first.startswith(b"version "):
        raise LoraFileError(f"{path}: this is a Git LFS pointer, not the file itself; run git lfs pull")
    if len(first) < 8:
        raise LoraFileError(f"{path}: not a safetensors file: it has only {size} bytes")
    if length > MAX_HEADER_BYTES:
        raise LoraFileError(
            f"{path}: not a safetensors file, or a hostile one: its header claims {length} bytes "
            f"(at most {MAX_HEADER_BYTES} are read)"
        )
    raise LoraFileError(f"{path}: truncated: the header claims {length} bytes, {size - 8} follow")


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise LoraFileError(f"{path}: the header names {key!r} twice")
            found[key] = value
        return found

    try:
        tree = json.loads(raw.decode(), object_pairs_hook=once)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise LoraFileError(f"{path}: not a safetensors file: its header is not JSON") from error
    if not isinstance(tree, dict):
        raise LoraFileError(f"{path}: not a safetensors file: its header is not a map")
    return tree


def _is_text_map(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _tensor(path: Path, name: str, entry: object) -> TensorInfo:
    """One entry of the header with every number checked."""
    if not isinstance(entry, dict):
        raise LoraFileError(f"{path}: the header's entry of {name!r} is not a map")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise LoraFileError(f"{path}: tensor {name!r} has the unknown type {dtype!r}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise LoraFileError(f"{path}: tensor {name!r} has no proper shape and offsets")
    begin, end = offsets
    if end - begin != prod(shape) * ITEM_BYTES[dtype]:
        raise LoraFileError(f"{path}: tensor {name!r} has {end - begin} bytes, which is not {dtype} {list(shape)}")
    return TensorInfo(dtype, tuple(shape), begin, end)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], data_bytes: int) -> None:
    """The tensors must cover the data once, without overlaps and holes."""
    position, before = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin < position:
            raise LoraFileError(f"{path}: tensors {before!r} and {name!r} overlap")
        if tensor.begin > position:
            raise LoraFileError(f"{path}: {tensor.begin - position} bytes before tensor {name!r} belong to no tensor")
        position, before = tensor.end, name
    if position > data_bytes:
        raise LoraFileError(f"{path}: truncated: tensors end at byte {position} of the data, the file at {data_bytes}")
    if position < data_bytes:
        raise LoraFileError(f"{path}: {data_bytes - position} bytes after the last tensor belong to no tensor")

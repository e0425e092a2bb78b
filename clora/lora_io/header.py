"""The header of a safetensors file, checked in full before a tensor is touched.

A safetensors file is 8 bytes of length, that much JSON, then the tensors' bytes. Whatever is wrong with a file (a
pickle, a broken download, offsets that lie) is found here and told in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from attrs import frozen

from clora.errors import CloraError, escaped, quoted, reason, shown
from clora.files.untrusted_json import parse_json

#: the longest header that is read (the format allows 100 MB): a LoRA with 2,000 tensors has some 300 kB, the tags of a
#: large training set, which kohya's scripts write into it, some MB
MAX_HEADER_BYTES = 16 << 20
#: tensors of one file; the largest models have some thousands
MAX_TENSORS = 100_000
#: letters of a tensor's name, dimensions of its shape; the longest names in use have about 100
MAX_NAME, MAX_DIMENSIONS = 500, 8
#: no size, no number of bytes is larger: the format counts in 64 bits
MOST = (1 << 63) - 1
#: how much of a tensor's name a message repeats: all of any that is in use
SHOWN_NAME = 120
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
    bytes: int = 0  # of the whole file


def named(name: str) -> str:
    """A tensor's name in a message: in quotes, of a very long one its beginning."""
    return quoted(name, SHOWN_NAME)


def brief(name: str) -> str:
    """A linear's name, or several, in a message: as it stands, of a very long one its beginning."""
    return escaped(name[:SHOWN_NAME]) + "..." * (len(name) > SHOWN_NAME)


def inspect_header(path: Path) -> Header:
    """Read and check the header of a safetensors file without reading a tensor.

    Raises LoraFileError for a file that is missing, no safetensors (a pickle above all), truncated, or whose tensors
    overlap, leave holes or do not fit their shapes.
    """
    try:
        found = path.is_file()
    except ValueError:  # a zero byte in its name
        found = False
    if not found:
        raise LoraFileError(f"{shown(path)}: there is no such file")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = _header_length(path, first, size)
            raw = file.read(length)
    except OSError as error:
        raise LoraFileError(f"{shown(path)}: cannot be read: {reason(error.strerror or error)}") from error
    where = shown(path)
    tree = _parse(where, raw)
    metadata = tree.pop("__metadata__", {})
    if not _is_text_map(metadata):
        raise LoraFileError(f"{where}: the header's __metadata__ is not a map of texts")
    _check_count(where, len(tree))
    tensors = {name: _tensor(where, name, entry) for name, entry in tree.items()}
    _check_layout(where, tensors, size - 8 - length)
    return Header(tensors, metadata, size)


def _header_length(path: Path, first: bytes, size: int) -> int:
    """The header's length in bytes, or the reason why this is no safetensors file."""
    length = int.from_bytes(first, "little")
    if len(first) == 8 and length <= min(MAX_HEADER_BYTES, size - 8):
        return length
    where = shown(path)
    # only now: the length of a proper header may look like the first bytes of something else
    if first.startswith(b"PK\x03\x04") or (first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        raise LoraFileError(
            f"{where}: this is a pickle, which can run code when it is loaded; only safetensors files are read, "
            "so convert it where you trust it"
        )
    if first.startswith(b"version "):
        raise LoraFileError(f"{where}: this is a Git LFS pointer, not the file itself; run git lfs pull")
    if len(first) < 8:
        raise LoraFileError(f"{where}: not a safetensors file: it has only {size} bytes")
    if length > MAX_HEADER_BYTES:
        raise LoraFileError(
            f"{where}: not a safetensors file, or a hostile one: its header claims {length:,} bytes "
            f"(at most {MAX_HEADER_BYTES:,} are read)"
        )
    raise LoraFileError(f"{where}: truncated: the header claims {length} bytes, {size - 8} follow")


def _parse(where: str, raw: bytes) -> dict[str, Any]:
    """The header's JSON map. Raises LoraFileError for what is none, also where a name stands twice."""
    _check_count(where, raw.count(b'"data_offsets"'))
    try:
        tree = parse_json(raw.decode(), where, once=True)
    except UnicodeDecodeError:
        raise LoraFileError(f"{where}: not a safetensors file: its header is not JSON, nor text in UTF-8") from None
    except CloraError as error:
        told = str(error).removeprefix(f"{where}: ")
        raise LoraFileError(f"{where}: not a safetensors file: its header {told}") from None
    if not isinstance(tree, dict):
        raise LoraFileError(f"{where}: not a safetensors file: its header is not a map")
    return tree


def _check_count(where: str, count: int) -> None:
    """So many tensors are checked in a second or two, more in minutes."""
    if count > MAX_TENSORS:
        raise LoraFileError(f"{where}: the header has {count:,} tensors; at most {MAX_TENSORS:,} are read")


def _is_text_map(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _tensor(where: str, name: str, entry: object) -> TensorInfo:
    """One entry of the header with every number checked."""
    if len(name) > MAX_NAME or escaped(name) != name:
        raise LoraFileError(f"{where}: {named(name)} is no tensor's name: too long, or with letters that are not shown")
    if not isinstance(entry, dict):
        raise LoraFileError(f"{where}: the header's entry of {named(name)} is not a map")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise LoraFileError(f"{where}: tensor {named(name)} has the unknown type {quoted(dtype)}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise LoraFileError(f"{where}: tensor {named(name)} has no proper shape and offsets")
    begin, end = offsets
    size = ITEM_BYTES[dtype]
    for length in shape:
        size *= length  # of few numbers below 2^63: it cannot grow beyond what Python multiplies at once
    if end - begin != size:
        raise LoraFileError(
            f"{where}: tensor {named(name)} has {end - begin} bytes, which is not {dtype} {list(shape)}"
        )
    return TensorInfo(dtype, tuple(shape), begin, end)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    """Whether it is a list of few whole numbers that 63 bits hold."""
    return (
        isinstance(value, list)
        and len(value) <= MAX_DIMENSIONS
        and all(type(number) is int and 0 <= number <= MOST for number in value)
    )


def _check_layout(where: str, tensors: Mapping[str, TensorInfo], data_bytes: int) -> None:
    """The tensors must cover the data once, without overlaps and holes."""
    position, before = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin < position:
            raise LoraFileError(f"{where}: tensors {named(before)} and {named(name)} overlap")
        if tensor.begin > position:
            gap = f"{tensor.begin - position} bytes before tensor {named(name)}"
            raise LoraFileError(f"{where}: {gap} belong to no tensor")
        position, before = tensor.end, name
    if position > data_bytes:
        raise LoraFileError(f"{where}: truncated: tensors end at byte {position} of the data, the file at {data_bytes}")
    if position < data_bytes:
        raise LoraFileError(f"{where}: {data_bytes - position} bytes after the last tensor belong to no tensor")

"""Tensors of a run on disk: safetensors with their checksum in the header, read through before a number is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from clora.errors import reason, shown
from clora.files.atomic import write_atomic_with
from clora.runs.files.checksums import DamagedError, Tell, checksum_of_tensors, make_way, warn

if TYPE_CHECKING:
    import torch

CHECKSUM = "clora.checksum"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], name: str | None = None) -> None:
    """Write tensors with their checksum, in one step; `name` is what the checksum begins with, the file's by default.

    Raises CloraError where the disk refuses.
    """
    metadata = {CHECKSUM: checksum_of_tensors(name or path.name, sorted(tensors.items()))}
    write_atomic_with(path, lambda temporary: save_file(dict(tensors), temporary, metadata))


def seal_tensors(path: Path, name: str) -> None:
    """Give a safetensors file that somebody else wrote its checksum; what its header said is kept."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - no mapping
    save_file(tensors, path, {**metadata, CHECKSUM: checksum_of_tensors(name, sorted(tensors.items()))})


def check_tensors(path: Path, name: str | None = None) -> None:
    """Read a file of `write_tensors` through. Raises FileNotFoundError, and DamagedError where it is not as written."""
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get(CHECKSUM)
            names = sorted(file.keys())
            found = checksum_of_tensors(name or path.name, ((key, file.get_tensor(key)) for key in names))
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedError(f"{shown(path)} is damaged ({reason(error)})") from None
    if told != found:
        raise DamagedError(f"{shown(path)} is damaged (its checksum is {'wrong' if told else 'missing'})")


def read_tensors(path: Path, name: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a file, mapped, once their checksum was right. Raises as `check_tensors`."""
    check_tensors(path, name)
    return load_file(path)


def kept_tensors(
    path: Path, make: Callable[[], Mapping[str, torch.Tensor]], tell: Tell = warn
) -> dict[str, torch.Tensor]:
    """The tensors of a file, mapped; made and written where it is not there or damaged, which is told."""
    try:
        return read_tensors(path)
    except FileNotFoundError:
        pass
    except DamagedError as error:
        tell(f"{error}; it is made again")
        make_way(path, tell)
    write_tensors(path, make())
    return load_file(path)

"""LoKr, LoHa and DoRA teachers as the LoRAs they become, kept on disk: decomposing takes minutes, reading does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clora.errors import shown
from clora.files.atomic import write_atomic_with
from clora.lora_io.check import layouts_of
from clora.lora_io.header import LoraFileError
from clora.lora_io.reader import LoraDelta, read_lora
from clora.lora_io.scales import StrengthFrom
from clora.lora_io.writer import write_lora
from clora.runs.files.checksums import DamagedError, make_way, warn
from clora.runs.files.tensors import check_tensors, seal_tensors
from clora.runs.run_dir import digest_of, digest_once

if TYPE_CHECKING:
    import torch


def read_teacher(
    path: Path,
    shapes: Mapping[str, tuple[int, int]],
    weights: Callable[[str], torch.Tensor] | None,
    cache: Path | None,
    backbone: str,
    strength: StrengthFrom = None,
) -> Mapping[str, LoraDelta]:
    """A teacher's deltas; one that is no plain LoRA is decomposed once for each state of its file and of the backbone.

    `backbone` is its digest, for a DoRA depends on it; `strength` says whose word on the file's strength counts. Warns
    what a decomposition loses, when it is made. Raises LoraFileError where the file does not fit.
    """
    by = _codes(path, shapes)
    kept = None if cache is None else cache / f"{path.stem}-{_state(path, backbone, strength, by)}.safetensors"
    if kept is not None and kept.exists():
        try:
            check_tensors(kept)
            return read_lora(kept, shapes).deltas
        except (DamagedError, LoraFileError) as error:
            warn(f"{error}; it is made again from {shown(path)}")
            make_way(kept)
    file = read_lora(path, shapes, weights=weights, strength=strength)
    for note in file.notes():
        warnings.warn(f"{shown(path)}: {note}", stacklevel=2)
    if kept is not None and file.conversions:
        write_atomic_with(kept, lambda temporary: _write(temporary, kept.name, file.deltas))
    return file.deltas


def _write(path: Path, name: str, deltas: Mapping[str, LoraDelta]) -> None:
    """The deltas as a LoRA file with its checksum."""
    write_lora(path, deltas)
    seal_tensors(path, name)


def teacher_digest(path: Path, shapes: Mapping[str, tuple[int, int]], cache: Path) -> str:
    """The hash of a teacher's file and, where registered layouts read it, of their source."""
    digest, codes = digest_once(path, cache), _codes(path, shapes)
    return digest_of([digest, *codes]) if codes else digest


def _codes(path: Path, shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    """What the reading of a file depends on beside it: the registered layouts that it needs."""
    return [layout.code for layout in layouts_of(path, shapes)]


def _state(path: Path, backbone: str, strength: StrengthFrom, codes: Sequence[str]) -> str:
    """A hash of which file this is, in its present state, and of how it is read; not of its gigabytes."""
    read = [backbone, *codes] if strength in (None, "file") else [backbone, strength, *codes]
    try:
        state = path.stat()
    except OSError:
        return digest_of([str(path), *read])  # the reader says what is wrong with it
    return digest_of([str(path.resolve()), state.st_size, state.st_mtime_ns, *read])

"""A run's folder: where everything lies, what it says of itself, which stages are done."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from clora.errors import CloraError
from clora.files import write_atomic

if TYPE_CHECKING:
    import torch


def digest_of(value: Any) -> str:
    """A short stable hash of a JSON-like value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def digest_file(path: Path) -> str:
    """A short hash of a file's bytes."""
    hasher = blake2b(digest_size=8)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def digest_once(path: Path, cache: Path) -> str:
    """`digest_file`, read again only once the file's size or time has changed: a bank has a hundred gigabytes."""
    state = path.stat()
    kept = cache / "digests" / digest_of([str(path.resolve()), state.st_size, state.st_mtime_ns])
    try:
        return kept.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        digest = digest_file(path)
        write_atomic(kept, digest)
        return digest


def _read(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises CloraError where it is damaged."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:  # not JSON, or not even text
        raise CloraError(f"{path} is damaged: {error}; remove it and run the recipe again") from error
    if not isinstance(content, dict):
        raise CloraError(f"{path} is damaged: it holds no mapping; remove it and run the recipe again")
    return content


def digest_tensor(tensor: torch.Tensor) -> str:
    """A short hash of a tensor's numbers."""
    return blake2b(tensor.contiguous().cpu().numpy().tobytes(), digest_size=8).hexdigest()


@frozen
class RunFolder:
    """One run on disk."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe, whole."""
        return self.path / "recipe.yaml"

    @property
    def steps(self) -> Path:
        """One JSON line per student update."""
        return self.path / "steps.jsonl"

    @property
    def lora(self) -> Path:
        """The exported LoRA."""
        return self.path / "export" / "lora.safetensors"

    @property
    def results(self) -> Path:
        """The evaluation's numbers."""
        return self.path / "evaluate" / "results.json"

    @property
    def pictures(self) -> Path:
        """The evaluation's pictures, uint8 tensors by name."""
        return self.path / "evaluate" / "pictures.safetensors"

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.path / "report.html"

    @property
    def prepare(self) -> Path:
        """Pictures of what training will aim at."""
        return self.path / "prepare"

    @property
    def cache(self) -> Path:
        """What runs beside this one share: teachers' outputs, by the hash of all that decides them."""
        return self.path.parent / ".cache"

    def info(self) -> dict[str, Any]:
        """What `run.json` says. Raises CloraError where this is no run folder."""
        try:
            return _read(self.path / "run.json")
        except (FileNotFoundError, NotADirectoryError):
            raise CloraError(f"{self.path} is not a run folder: it has no run.json") from None

    def read_results(self) -> dict[str, Any]:
        """The evaluation's numbers. Raises CloraError where the run has not been evaluated."""
        try:
            return _read(self.results)
        except (FileNotFoundError, NotADirectoryError):
            raise CloraError(f"{self.path} has not been evaluated; `clora run` with its recipe finishes it") from None

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        write_atomic(self.path / "run.json", json.dumps(info, indent=2) + "\n")

    def stage_done(self, stage: str, digest: str) -> bool:
        """True if the stage was finished from the same inputs and its outputs have not been removed."""
        marks = self._marks()
        return (
            stage in marks
            and marks[stage]["inputs"] == digest
            and all((self.path / name).exists() for name in marks[stage]["outputs"])
        )

    def mark_done(self, stage: str, digest: str, outputs: tuple[Path, ...]) -> None:
        """Note that a stage is finished, from which inputs, and which files it made."""
        names = [str(path.relative_to(self.path)) for path in outputs]
        marks = self._marks() | {stage: {"inputs": digest, "outputs": names}}
        write_atomic(self.path / "stages.json", json.dumps(marks, indent=2) + "\n")

    def forget(self, *stages: str) -> None:
        """Have these stages done again."""
        marks = {stage: mark for stage, mark in self._marks().items() if stage not in stages}
        write_atomic(self.path / "stages.json", json.dumps(marks, indent=2) + "\n")

    def _marks(self) -> dict[str, Any]:
        path = self.path / "stages.json"
        return _read(path) if path.exists() else {}

    def check_writable(self) -> None:
        """Raises CloraError where the folder cannot be made or written."""
        write_atomic(self.path / ".writable", "")
        os.unlink(self.path / ".writable")

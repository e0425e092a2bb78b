"""A run's folder: where everything lies, what it says of itself, which stages are done."""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from clora.errors import CloraError, shown
from clora.files.atomic import write_atomic
from clora.runs.files.checksums import DamagedError, Tell, checksum_of_file, make_way, warn
from clora.runs.files.done_stages import Marks, Written
from clora.runs.files.fields import Fields
from clora.runs.files.record import RunRecord
from clora.runs.files.results import Results
from clora.runs.files.sealed_json import read_sealed, write_sealed

if TYPE_CHECKING:
    import torch

#: how a damaged file of a run is made again
AGAIN = "`clora run` with the run's recipe makes it again"


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


def digest_once(path: Path, cache: Path, tell: Tell = warn) -> str:
    """`digest_file`, read again only once the file's size or time has changed: a bank has a hundred gigabytes."""
    state = path.stat()
    kept = cache / "digests" / digest_of([str(path.resolve()), state.st_size, state.st_mtime_ns])
    try:
        return Fields(read_sealed(kept), shown(kept)).text("digest")
    except FileNotFoundError:
        pass
    except DamagedError as error:
        tell(f"{error}; {shown(path)} is hashed again")
        make_way(kept, tell)
    digest = digest_file(path)
    write_sealed(kept, {"digest": digest})
    return digest


def digest_tensor(tensor: torch.Tensor) -> str:
    """A short hash of a tensor's numbers."""
    return blake2b(tensor.contiguous().cpu().numpy().tobytes(), digest_size=8).hexdigest()


@frozen
class RunDir:
    """One run on disk."""

    path: Path  # the run's folder, RUNS/NAME-HASH

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
    def metric_pictures(self) -> Path:
        """Pictures that metrics show, uint8 tensors by name; not there where none does."""
        return self.path / "evaluate" / "metric_pictures.safetensors"

    @property
    def prepare(self) -> Path:
        """Pictures of what training will aim at."""
        return self.path / "prepare"

    @property
    def observers(self) -> Path:
        """What observers write, a folder for each."""
        return self.path / "observers"

    @property
    def cache(self) -> Path:
        """What runs beside this one share: teachers' outputs, by the hash of all that decides them."""
        return self.path.parent / ".cache"

    def info(self) -> RunRecord:
        """What `run.json` says. Raises CloraError where this is no run folder or the file is damaged."""
        try:
            return self.read_info()
        except (FileNotFoundError, NotADirectoryError):
            raise CloraError(f"{shown(self.path)} is not a run folder: it has no run.json") from None
        except DamagedError as error:
            raise DamagedError(f"{error}; {AGAIN}") from None

    def read_info(self) -> RunRecord:
        """What `run.json` says. Raises FileNotFoundError where there is none, and DamagedError."""
        path = self.path / "run.json"
        return RunRecord.of(Fields(read_sealed(path), shown(path)))

    def write_info(self, info: RunRecord) -> None:
        """Replace `run.json`."""
        write_sealed(self.path / "run.json", info.tree())

    def read_results(self) -> Results:
        """The evaluation's numbers. Raises CloraError where the run has not been evaluated or they are damaged."""
        try:
            return Results.of(Fields(read_sealed(self.results), shown(self.results)))
        except (FileNotFoundError, NotADirectoryError):
            raise CloraError(
                f"{shown(self.path)} has not been evaluated yet; `clora run` with its recipe finishes it"
            ) from None
        except DamagedError as error:
            raise DamagedError(f"{error}; `clora evaluate {shown(self.path)}` writes it again") from None

    def write_results(self, results: Results) -> None:
        """Replace the evaluation's numbers."""
        write_sealed(self.results, results.tree())

    def check_recipe(self) -> None:
        """Raise DamagedError where `recipe.yaml` is not what the run wrote, by damage or by a person's hand."""
        path = shown(self.recipe)
        try:
            found = checksum_of_file(self.recipe)
        except OSError as error:
            raise DamagedError(f"{path} cannot be read ({error.strerror}); {AGAIN}") from None
        if found != self.info().recipe:
            raise DamagedError(
                f"{path} has changed since it was written; {AGAIN}. Where you changed it yourself, "
                f"`clora run {path} --run-dir {shown(self.path)}` takes it over"
            )

    def check_lora(self) -> Path:
        """The exported LoRA, which is as it was written. Raises CloraError where there is none or it is not."""
        problem = self.marks().problem(self.path, self.name(self.lora))
        if problem is not None:
            raise DamagedError(f"{shown(self.lora)} {problem}; {AGAIN}")
        return self.lora

    def marks(self) -> Marks:
        """Which stages are done. Raises DamagedError."""
        try:
            return self.read_marks()
        except DamagedError as error:
            raise DamagedError(f"{error}; {AGAIN}") from None

    def read_marks(self) -> Marks:
        """Which stages are done, none where nothing says so. Raises DamagedError."""
        path = self.path / "stages.json"
        try:
            return Marks.of(Fields(read_sealed(path), shown(path)))
        except (FileNotFoundError, NotADirectoryError):
            return Marks()

    def stage_done(self, stage: str, digest: str, tell: Tell = warn) -> bool:
        """True if the stage was finished from the same inputs and its outputs are as they were written.

        What is not is told, and what stands in its place is moved aside where it is a folder.
        """
        marks = self.marks()
        found = marks.stages.get(stage)
        if found is None or found.inputs != digest:
            return False
        wrong = marks.damaged(self.path, stage)
        for name, problem in wrong.items():
            tell(f"{shown(self.path / name)} {problem}; it is made again")
            make_way(self.path / name, tell)
        return not wrong

    def mark_done(self, stage: str, digest: str, outputs: tuple[Path, ...]) -> None:
        """Note that a stage is finished, from which inputs, and which files it made, each with its checksum."""
        self.write_marks(self.marks().done(stage, digest, {self.name(path): Written.now(path) for path in outputs}))

    def forget(self, *stages: str) -> None:
        """Have these stages done again."""
        self.write_marks(self.marks().without(*stages))

    def write_marks(self, marks: Marks) -> None:
        """Replace `stages.json`."""
        write_sealed(self.path / "stages.json", marks.tree())

    def name(self, path: Path) -> str:
        """What `stages.json` calls a file of this folder."""
        return path.relative_to(self.path).as_posix()

    def check_writable(self) -> None:
        """Raises CloraError where the folder cannot be made or written."""
        write_atomic(self.path / ".writable", "")
        os.unlink(self.path / ".writable")

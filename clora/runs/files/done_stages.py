"""`stages.json`: which stages are done, from which inputs, and the size and checksum of every file that they made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, field, frozen

from clora.errors import shown
from clora.runs.files.checksums import DamagedError, checksum_of_file
from clora.runs.files.fields import Fields


@frozen
class Stage:
    """A finished stage; its outputs are names below the run's folder."""

    inputs: str
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, fields: Fields, key: str) -> Stage:
        """From the file's map."""
        stage = fields.map(key)
        return cls(stage.text("inputs"), stage.texts("outputs"))


@frozen
class Written:
    """A file as it was when its stage was done."""

    bytes: int
    blake2b: str

    @classmethod
    def of(cls, fields: Fields, key: str) -> Written:
        """From the file's map."""
        written = fields.map(key)
        return cls(written.whole("bytes"), written.text("blake2b"))

    @classmethod
    def now(cls, path: Path) -> Written:
        """The file as it is now."""
        return cls(path.stat().st_size, checksum_of_file(path))


@frozen
class Marks:
    """All finished stages, and all files that they made, by name. A file belongs to the stage that wrote it last."""

    stages: Mapping[str, Stage] = field(factory=dict)
    files: Mapping[str, Written] = field(factory=dict)

    @classmethod
    def of(cls, fields: Fields) -> Marks:
        """From the file's map. Raises DamagedError for a field that is missing or of another type."""
        stages = fields.map("stages").map_of(Stage.of)
        files = fields.map("files").map_of(Written.of)
        for stage in stages.values():
            for name in stage.outputs:
                if name not in files:
                    raise DamagedError(f"{fields.where} is damaged: it has no checksum of {shown(name)}")
        return cls(stages, files)

    def tree(self) -> dict[str, Any]:
        """As the file holds it."""
        return asdict(self)

    def damaged(self, folder: Path, stage: str) -> dict[str, str]:
        """The outputs of a finished stage that are not as they were written, each with what is wrong."""
        found = {name: self.problem(folder, name) for name in self.stages[stage].outputs}
        return {name: problem for name, problem in found.items() if problem is not None}

    def problem(self, folder: Path, name: str) -> str | None:
        """What is wrong with a file, in words that follow its name; None where it is as it was written."""
        if name in self.files:
            return _problem(folder / name, self.files[name])
        if not (folder / name).exists():
            return "is not there: the run has made nothing of that name yet"
        return "has no checksum in stages.json: the run has not finished it"

    def done(self, stage: str, inputs: str, files: Mapping[str, Written]) -> Marks:
        """With this stage done."""
        others = {
            name: evolve(other, outputs=tuple(output for output in other.outputs if output not in files))
            for name, other in self.stages.items()
            if name != stage
        }
        return _kept({**others, stage: Stage(inputs, tuple(files))}, {**self.files, **files})

    def without(self, *stages: str) -> Marks:
        """With these stages to be done again."""
        return _kept({name: stage for name, stage in self.stages.items() if name not in stages}, self.files)


def _kept(stages: Mapping[str, Stage], files: Mapping[str, Written]) -> Marks:
    """Files that no stage made are forgotten."""
    named = {output for stage in stages.values() for output in stage.outputs}
    return Marks(stages, {name: written for name, written in files.items() if name in named})


def _problem(path: Path, written: Written) -> str | None:
    try:
        if not path.exists():
            return "has gone"
        if not path.is_file():
            return "is damaged (a folder stands in its place)"
        size = path.stat().st_size
        if size != written.bytes:
            return f"is damaged, or was changed, since it was written ({size:,} bytes instead of {written.bytes:,})"
        if checksum_of_file(path) != written.blake2b:
            return "is damaged, or was changed, since it was written (its checksum is wrong)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None

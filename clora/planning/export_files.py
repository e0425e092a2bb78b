"""What a recipe's exporters write, by name; whatever is no file below the export's folder is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from attrs import frozen

from clora.contracts.export import Evaluated, Exporter, Illustrates
from clora.errors import escaped, quoted
from clora.plugin_system.guard import came

if TYPE_CHECKING:
    from clora.contracts.export import ExportedLora, FileContents
    from clora.plugin_system.guard import Owners

#: the file that the core writes into the export's folder
WEIGHTS = "lora.safetensors"
MOST_FILES = 10_000  # of one exporter
MOST_NAME = 240  # letters of a path below the export's folder


@frozen
class ExportFile:
    """What one file holds, and the place of the exporter that gave it."""

    place: str
    contents: FileContents


def files_of(
    exporters: Mapping[str, Exporter], owners: Owners, lora: ExportedLora, evaluated: Evaluated | None = None
) -> list[tuple[str, ExportFile]]:
    """Each name with its file, those of `export`, or after the evaluation those of `illustrate`.

    Raises ComponentError for an exporter that raises or gives what is no file.
    """
    files: list[tuple[str, ExportFile]] = []
    for key, exporter in exporters.items():
        place = f"exporters.{key}"
        if evaluated is not None and not isinstance(exporter, Illustrates):
            continue
        with owners.calling(place):
            if isinstance(exporter, Illustrates) and evaluated is not None:
                given = exporter.illustrate(lora, evaluated)
            else:
                given = exporter.export(lora)
        problem = files_problem(given)
        if problem is not None:
            raise owners.error(place, problem)
        files += [(name, ExportFile(place, contents)) for name, contents in given.items()]
    return files


def files_problem(given: object) -> str | None:
    """What is wrong with what an exporter gave."""
    if not isinstance(given, Mapping):
        return f"gave {came(given)}; expected a mapping of files' names to their contents"
    if len(given) > MOST_FILES:
        return f"gave {len(given):,} files; at most {MOST_FILES:,} are written"
    for name, contents in given.items():
        problem = _name_problem(name)
        if problem is not None:
            return f"gave a file named {quoted(name)}, which {problem}; expected a path such as 'images/ink.png'"
        if not isinstance(contents, (str, bytes)) and not callable(contents):
            return f"gave {came(contents)} as the contents of {quoted(name)}; expected text, bytes or a function"
    return None


def _name_problem(name: object) -> str | None:
    """Why a file of this name cannot be written into the export's folder, in words that follow the name."""
    if not isinstance(name, str):
        return "is no text"
    if name.casefold() == WEIGHTS:
        return "is the LoRA itself"
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or ":" in name or "\\" in name:
        return "lies outside the export's folder"
    if any(not part or part.startswith(".") for part in parts):
        return "has a part that is empty or begins with a dot"
    if len(name) > MOST_NAME or escaped(name) != name:
        return "is too long, or has letters that are not shown"
    return None


def collisions(files: list[tuple[str, ExportFile]]) -> Iterator[tuple[str, str]]:
    """(place, sentence) for every file whose name another exporter has taken, as a file or as a folder."""
    taken: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name, file in files:
        key = PurePosixPath(name.casefold())  # some file systems know no capitals
        above = [str(parent) for parent in key.parents if parent.name]
        other = next((found for each in (str(key), *above) if (found := taken.get(each)) is not None), None)
        other = other or folders.get(str(key))
        if other is not None:
            yield file.place, f"its file {quoted(name)} collides with one of {other}"
            continue
        taken[str(key)] = file.place
        folders.update(dict.fromkeys(above, file.place))

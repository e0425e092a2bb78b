"""The files that reporters write: named before the run, in its folder, in nobody else's place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from clora.errors import quoted
from clora.plugin_system.guard import came, texts

if TYPE_CHECKING:
    from clora.contracts.report import Reporter

#: what stands in a run's folder beside reports
OWN = frozenset(
    {"recipe.yaml", "run.json", "stages.json", "steps.jsonl"}
    | {"checkpoints", "evaluate", "export", "observers", "prepare", "warm_start"}
)
MOST_FILES = 1000
MOST_NAME = 200
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*(?<![. ])")  # a name on every system
#: what Windows takes for a device, with any ending
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def report_files(reporters: Mapping[str, Reporter]) -> tuple[str, ...]:
    """The files of all reporters, in their order."""
    return tuple(name for reporter in reporters.values() for name in reporter.files())


def report_file_findings(reporters: Mapping[str, Reporter]) -> Iterable[tuple[str, str]]:
    """Reporters whose files cannot stand in a run's folder, each with its place in the recipe."""
    taken: dict[str, str] = {}  # a name as every file system tells it apart -> the reporter
    for key, reporter in reporters.items():
        place = f"reporters.{key}"
        names, problem = texts("files", reporter.files, "a list of the names of its files")
        if problem or len(names) > MOST_FILES:
            yield place, problem or f"its files are {len(names):,}; {MOST_FILES:,} are the most"
            continue
        for name in names:
            problem = _name_problem(name) or _clash(name, taken)
            if problem:
                yield place, problem
            else:
                taken[name.lower()] = place


def contents_problem(given: object, names: Iterable[str]) -> str | None:
    """What is wrong with what a reporter gave, which names its files so."""
    wanted = list(names)
    if not isinstance(given, Mapping):
        return f"gave {came(given)}; expected a mapping of {', '.join(map(quoted, wanted)) or 'no files'} to contents"
    for name, content in given.items():
        if name not in wanted:
            return f"gave a file {quoted(name)}, which its files() do not name"
        if not isinstance(content, str | bytes):
            return f"gave {came(content)} for {quoted(name)}; expected text or bytes"
        if isinstance(content, str) and not _is_utf8(content):
            return f"gave text for {quoted(name)} that UTF-8 cannot hold (a lone surrogate)"
    missing = [name for name in wanted if name not in given]
    return f"gave no {quoted(missing[0])}, which its files() name" if missing else None


def _is_utf8(text: str) -> bool:
    """True for a text that a file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _name_problem(name: str) -> str | None:
    parts = name.split("/")
    if len(name) > MOST_NAME or not all(_PART.fullmatch(part) and not _DEVICE.fullmatch(part) for part in parts):
        return (
            f"{quoted(name)} is no name for a file in the run's folder; letters, digits, '_', '-', '.' and spaces make "
            "one, and '/' stands between folders"
        )
    if parts[0].lower() in OWN:
        return (
            f"its file {quoted(name)} would stand where the run writes {quoted(parts[0].lower())}; choose another name"
        )
    return None


def _clash(name: str, taken: Mapping[str, str]) -> str | None:
    """A file that another reporter writes, or one that would have to be a folder of the other."""
    low = name.lower()
    above = [str(path) for path in PurePosixPath(low).parents]
    for other, place in taken.items():
        if low == other or other in above or low in [str(path) for path in PurePosixPath(other).parents]:
            return f"its file {quoted(name)} would stand where {place} writes {quoted(other)}; choose another name"
    return None

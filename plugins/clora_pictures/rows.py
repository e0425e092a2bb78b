"""The rows of a list of pictures, every key and path of every line checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from clora.api import MAX_NAME, MAX_PROMPT, Split, kind_of, quoted, text_problem
from clora_pictures.keys import PICTURES, Stream, missing, understood
from clora_pictures.lines import SIZE_LIMIT
from clora_pictures.pictures import picture_at
from clora_pictures.problems import Problems
from clora_pictures.tables import records

SPLITS: tuple[Split, ...] = ("train", "test")
#: lines of a list, and keys of a line
MAX_ROWS, MAX_KEYS = 1_000_000, 1000


@frozen
class Row:
    """A line, or a folder's picture, without a mistake; both paths are absolute, links followed."""

    line: int  # 0 in a folder
    source: Path
    below: str  # the source below the folder that it is listed in: it decides the split where none is given
    effect: str = ""
    target: Path | None = None
    instruction: str = ""
    split: Split | None = None


@frozen(eq=False)
class Sheet:
    """The good rows of one list or folder, and its mistakes."""

    rows: tuple[Row, ...]
    problems: Problems


@frozen
class Rules:
    """What the recipe allows: links that lead out of the folders that it names, and megabytes of a list."""

    follow_links: bool = False
    size_limit: int = SIZE_LIMIT


@frozen
class Asked:
    """What a list or folder is read for: a stream and, where it has that of one alone, the effect or split."""

    stream: Stream
    effect: str | None = None
    split: Split | None = None
    rules: Rules = Rules()
    root: Path | None = None  # the folder that the recipe names, where this is a list or folder found in it


@frozen
class _Reading:
    """One reading of a list."""

    asked: Asked
    folder: Path  # the list's own, resolved
    lenient: bool
    problems: Problems = field(repr=False)


def read_list(path: Path, asked: Asked) -> Sheet:
    """The rows of a JSONL file, or of a CSV or JSON one; a `metadata.*` may have keys that are nobody's here."""
    lenient = path.stem == "metadata" or path.suffix.lower() in (".csv", ".json")
    reading = _Reading(asked, path.parent.resolve(), lenient, Problems(path))
    found = records(path, reading.problems, asked.rules.size_limit)
    rows = [_row(line, value, reading) for line, value in _counted(found, reading.problems)]
    return Sheet(tuple(row for row in rows if row is not None), reading.problems)


def _counted(found: Iterable[tuple[int, dict[str, Any]]], problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records up to MAX_ROWS; more are noted and not read."""
    for count, (line, value) in enumerate(found):
        if count == MAX_ROWS:
            problems.at(line, f"has more than {MAX_ROWS:,} lines; split it: `effects` takes a list for each effect")
            return
        yield line, value


def _row(line: int, value: dict[str, Any], reading: _Reading) -> Row | None:
    """One line as a row, or None with all its mistakes noted."""
    problems, before = reading.problems, reading.problems.count
    if len(value) > MAX_KEYS:
        problems.at(line, f"has {len(value):,} keys; at most {MAX_KEYS:,} are read")
        return None
    if reading.lenient:
        value = {key: item for key, item in value.items() if item is not None}
    said = understood(line, value, reading.asked.stream, reading.lenient, problems)
    for meaning in _required(reading.asked):
        if meaning not in said:
            problems.at(line, missing(meaning, said, value, reading.lenient))
    words = {
        meaning: _word(line, meaning, key, _only(item) if meaning in PICTURES else item, problems)
        for meaning, (key, item) in said.items()
    }
    _agree(line, words, reading)
    paths = {
        meaning: _path(line, said[meaning][0], word, reading)
        for meaning, word in words.items()
        if meaning in PICTURES and word is not None
    }
    if problems.count > before:
        return None
    source, target = paths["source"], paths.get("target")
    assert source is not None  # its absence is a problem
    return Row(
        line,
        source,
        source.relative_to(reading.folder).as_posix(),
        effect=reading.asked.effect or words.get("effect") or "",
        target=target,
        instruction=words.get("instruction") or "",
        split=reading.asked.split or words.get("split"),  # pyright: ignore[reportArgumentType] - one of SPLITS here
    )


def _required(asked: Asked) -> tuple[str, ...]:
    if asked.stream == "general":
        return ("source", "instruction")
    return ("source", "effect") if asked.effect is None else ("source",)


def _agree(line: int, words: Mapping[str, str | None], reading: _Reading) -> None:
    """Note a split that is none, and an effect or split that the list as a whole is not of."""
    asked, problems = reading.asked, reading.problems
    effect, split = words.get("effect"), words.get("split")
    if split is not None and split not in SPLITS:
        problems.at(line, f"split is {quoted(split)}; it must be 'train' or 'test'")
    elif None not in (split, asked.split) and split != asked.split:
        problems.at(line, f"split is {quoted(split)}, but the folder is {asked.split!r}")
    if None not in (effect, asked.effect) and effect != asked.effect:
        problems.at(line, f"effect is {quoted(effect)}, but the recipe has this list for {quoted(asked.effect)}")


def _only(value: object) -> object:
    """The one item of a list; whatever else it is, the value."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _word(line: int, meaning: str, key: str, value: object, problems: Problems) -> str | None:
    """A text that is not blank; None where it is not, with the mistake noted."""
    if isinstance(value, list) and len(value) > 1:
        problems.at(line, f"{key} lists {len(value):,} values; one is read")
    elif not isinstance(value, str):
        problems.at(line, f"{key} must be text, found {kind_of(value)}")
    elif not value.strip():
        problems.at(line, f"{key} is empty")
    elif meaning not in PICTURES and (wrong := text_problem(value.strip(), _most(meaning))) is not None:
        problems.at(line, f"{key} {wrong}: {quoted(value)}")
    else:
        return value.strip()
    return None


def _most(meaning: str) -> int:
    return MAX_PROMPT if meaning == "instruction" else MAX_NAME


def _path(line: int, key: str, text: str, reading: _Reading) -> Path | None:
    """A path below the folder, written the same way whatever links lead there."""
    try:
        return picture_at(text, reading.folder, reading.asked.rules.follow_links)
    except ValueError as error:
        reading.problems.at(line, f"{key} {error}")
        return None

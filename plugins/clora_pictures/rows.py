"""The rows of a JSONL file, every key and path of every line checked."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from clora.api import Split
from clora_pictures.lines import kind, objects
from clora_pictures.pictures import located
from clora_pictures.problems import Problems, near

SPLITS: tuple[Split, ...] = ("train", "test")


@frozen
class Layout:
    """The keys of a file's lines. `same` names a key that stands for another one."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    same: tuple[tuple[str, str], ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that a line may have."""
        return (*self.required, *self.optional, *(word for word, _ in self.same))


LAYOUTS = {
    "effects": Layout(("source", "effect"), ("target", "instruction", "split")),
    "general": Layout(("source", "instruction"), ("split",), (("image", "source"),)),
}
Stream = Literal["effects", "general"]


@frozen
class Row:
    """A line without a mistake; `source` and `target` are paths below the file's folder, links followed."""

    line: int
    source: str
    effect: str = ""
    target: str | None = None
    instruction: str = ""
    split: Split | None = None


@frozen(eq=False)
class Rows:
    """A file's good lines and its mistakes."""

    folder: Path  # the file's own, resolved
    rows: tuple[Row, ...]
    problems: Problems


def read_rows(path: Path, stream: Stream) -> Rows:
    """The rows of a file, read again only once it has changed."""
    try:
        state = path.stat()
    except OSError:
        return _read(path, stream, 0, 0)
    return _read(path, stream, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, stream: Stream, changed: int, size: int) -> Rows:
    """`changed` and `size` are the state of the file that the rows belong to."""
    problems = Problems(path)
    folder = path.parent.resolve()
    found = objects(path, problems)
    rows = [_row(line, value, LAYOUTS[stream], folder, problems) for line, value in found]
    return Rows(folder, tuple(row for row in rows if row is not None), problems)


def _row(line: int, value: dict[str, Any], layout: Layout, folder: Path, problems: Problems) -> Row | None:
    """One line as a row, or None with all its mistakes noted."""
    before = problems.count
    for key in value:
        if key not in layout.keys:
            problems.at(line, f"unknown key {key!r}{near(key, layout.keys) or '; known: ' + ', '.join(layout.keys)}")
    for word, meant in layout.same:
        if word in value and meant in value:
            problems.at(line, f"{word!r} and {meant!r} are the same key; give one of them")
        elif word in value:
            value = {meant if key == word else key: item for key, item in value.items()}
    for key in layout.required:
        if key not in value:
            problems.at(line, f"{key!r} is missing")
    words = {key: _word(line, key, value[key], problems) for key in value if key in layout.keys}
    if words.get("split") not in (None, *SPLITS):
        problems.at(line, f"split is {words['split']!r}; it must be 'train' or 'test'")
    paths = {
        key: _path(line, key, word, folder, problems)
        for key, word in words.items()
        if key in ("source", "target") and word is not None
    }
    if problems.count > before:
        return None
    return Row(line, **{key: word for key, word in (words | paths).items() if word is not None})  # pyright: ignore[reportArgumentType] - split is one of SPLITS here


def _word(line: int, key: str, value: object, problems: Problems) -> str | None:
    """A text that is not blank; None where it is not, with the mistake noted."""
    if not isinstance(value, str):
        problems.at(line, f"{key} must be text, found {kind(value)}")
    elif not value.strip():
        problems.at(line, f"{key} is empty")
    elif not _is_unicode(value):
        problems.at(line, f"{key} holds half a character (a lone surrogate): {kind(value)}")
    else:
        return value.strip()
    return None


def _is_unicode(text: str) -> bool:
    """False for what JSON's \\ud800 makes: no file name and no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path(line: int, key: str, text: str, folder: Path, problems: Problems) -> str | None:
    """A path below the folder, written the same way whatever links lead there."""
    try:
        return located(folder, text).relative_to(folder).as_posix()
    except ValueError as error:
        problems.at(line, f"{key} {error}")
        return None

"""A list of pictures as its records with their line numbers: JSONL, CSV with a header, or one JSON list."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clora.api import MAX_DEPTH, open_file, quoted, reason
from clora_pictures.lines import (
    BYTE_ORDER_MARK,
    MAX_LINE_BYTES,
    SIZE_LIMIT,
    ObjectReader,
    objects,
    raw_lines,
    unreadable,
    usable,
    utf8,
)
from clora_pictures.problems import Problems

MAX_COLUMNS = 1000
_SPACE = re.compile(r"[ \t\r\n]*")
_SIGNS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


class TooLongError(csv.Error, ValueError):
    """A row or an object of more bytes than any has."""


def records(path: Path, problems: Problems, size_limit: int = SIZE_LIMIT) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, record) of every good line; all others are noted in `problems`. The ending says how it is read."""
    if path.suffix.lower() == ".csv":
        return _rows_of_csv(path, problems, size_limit)
    if path.suffix.lower() == ".json":
        return _items_of_json(path, problems, size_limit)
    return objects(path, problems, size_limit)


def _rows_of_csv(path: Path, problems: Problems, size_limit: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows under the header line; an empty cell is a missing key, a column without a name is not read."""
    line = fed_bytes = 0

    def fed() -> Iterator[str]:
        nonlocal line, fed_bytes
        for line, raw in raw_lines(path, problems, size_limit):
            fed_bytes += len(raw)
            if fed_bytes > 2 * MAX_LINE_BYTES:  # a quotation mark that nothing closes would take the whole file
                raise TooLongError(f"a row is longer than {2 * MAX_LINE_BYTES >> 20} MB")
            text = utf8(line, raw, problems)
            if text is not None:
                yield text

    reader = csv.reader(fed(), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(header) > MAX_COLUMNS:
            problems.at(line, f"has {len(header):,} columns; at most {MAX_COLUMNS:,} are read")
            return
        for name, count in Counter(header).items():
            if name and count > 1:
                problems.at(line, f"the column {quoted(name)} stands here twice")
        if problems.count:
            return
        fed_bytes = 0
        for cells in reader:
            fed_bytes = 0
            if len(cells) != len(header):
                problems.at(line, f"has {len(cells)} cells, the header {len(header)}")
            else:
                yield line, {name: cell for name, cell in zip(header, cells, strict=True) if name and cell.strip()}
    except csv.Error as error:
        problems.at(line, f"not CSV: {reason(error)}")


def _items_of_json(path: Path, problems: Problems, size_limit: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of one JSON list, each with the line that it starts in."""
    text = _text(path, problems, size_limit)
    at = _skipped(text, 0)
    if not text.startswith("[", at):
        if not problems.count:
            found = "nothing" if at == len(text) else quoted(text[at : at + 20])
            problems.at(1, f"expected one list [...] of objects, found {found}; one object a line is a .jsonl file")
        return
    line, counted = 1, 0
    at = _skipped(text, at + 1)
    try:
        while not text.startswith("]", at):
            line, counted = line + text.count("\n", counted, at), at
            _check_extent(text, at)
            reader = ObjectReader()
            value, end = reader.decoder.raw_decode(text, at)
            at = _behind_comma(text, end)
            checked = reader.checked(line, value, problems)
            if checked is not None:
                yield line, checked
    except json.JSONDecodeError as error:
        problems.at(error.lineno, f"not JSON: {error.msg}", error.colno)
        return
    except TooLongError as error:
        problems.at(line, f"{error}; what follows was not read")
        return
    except (RecursionError, ValueError) as error:
        problems.at(line, unreadable(error))
        return
    if (rest := _skipped(text, at + 1)) < len(text):
        problems.at(1 + text.count("\n", 0, rest), "more stands behind the list")


def _check_extent(text: str, at: int) -> None:
    """Raise TooLongError for an item longer than a line may be, RecursionError for one that is nested too deeply."""
    depth = 0
    for match in _SIGNS.finditer(text, at, at + MAX_LINE_BYTES):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            raise RecursionError
        if depth <= 0:
            if match.end() == at + MAX_LINE_BYTES:
                break
            return
    if len(text) - at > MAX_LINE_BYTES:
        raise TooLongError(f"the object is longer than {MAX_LINE_BYTES >> 20} MB")


def _text(path: Path, problems: Problems, size_limit: int) -> str:
    """The whole file, empty with the mistake noted where it cannot be used."""
    try:
        if not usable(path, problems, size_limit):
            return ""
        with open_file(path) as file:
            raw = file.read((size_limit << 20) + 1).removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        problems.at(0, f"cannot be read: {reason(error.strerror or error)}")
        return ""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.at(1 + raw.count(b"\n", 0, error.start), f"not UTF-8: byte {raw[error.start]:#04x}")
        return ""


def _behind_comma(text: str, at: int) -> int:
    """Where the list's next item or its end stands."""
    at = _skipped(text, at)
    if not text.startswith(",", at):
        if text.startswith("]", at):
            return at
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    at = _skipped(text, at + 1)
    if text.startswith("]", at):
        raise json.JSONDecodeError("a comma before the list's end", text, at)
    return at


def _skipped(text: str, at: int) -> int:
    """The next position that holds no white space."""
    space = _SPACE.match(text, at)
    return at if space is None else space.end()

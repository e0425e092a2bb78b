"""A list of pictures as its records with their line numbers: JSONL, CSV with a header, or one JSON list."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clora_pictures.lines import BYTE_ORDER_MARK, ObjectReader, objects, raw_lines, unreadable, usable, utf8
from clora_pictures.problems import Problems


def records(path: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, record) of every good line; all others are noted in `problems`. The ending says how it is read."""
    if path.suffix.lower() == ".csv":
        return _rows_of_csv(path, problems)
    if path.suffix.lower() == ".json":
        return _items_of_json(path, problems)
    return objects(path, problems)


def _rows_of_csv(path: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows under the header line; an empty cell is a missing key, a column without a name is not read."""
    line = 0

    def fed() -> Iterator[str]:
        nonlocal line
        for line, raw in raw_lines(path, problems):
            text = utf8(line, raw, problems)
            if text is not None:
                yield text

    reader = csv.reader(fed(), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in dict.fromkeys(header):
            if name and header.count(name) > 1:
                problems.at(line, f"the column {name!r} stands here twice")
        if problems.count:
            return
        for cells in reader:
            if len(cells) != len(header):
                problems.at(line, f"has {len(cells)} cells, the header {len(header)}")
            else:
                yield line, {name: cell for name, cell in zip(header, cells, strict=True) if name and cell.strip()}
    except csv.Error as error:
        problems.at(line, f"not CSV: {error}")


def _items_of_json(path: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of one JSON list, each with the line that it starts in."""
    text = _text(path, problems)
    at = _skipped(text, 0)
    if not text.startswith("[", at):
        if not problems.count:
            found = "nothing" if at == len(text) else json.dumps(text[at : at + 20])
            problems.at(1, f"expected one list [...] of objects, found {found}; one object a line is a .jsonl file")
        return
    line, counted = 1, 0
    at = _skipped(text, at + 1)
    try:
        while not text.startswith("]", at):
            line, counted = line + text.count("\n", counted, at), at
            reader = ObjectReader()
            value, end = reader.decoder.raw_decode(text, at)
            at = _behind_comma(text, end)
            checked = reader.checked(line, value, problems)
            if checked is not None:
                yield line, checked
    except json.JSONDecodeError as error:
        problems.at(error.lineno, f"not JSON: {error.msg}", error.colno)
        return
    except (RecursionError, ValueError) as error:
        problems.at(line, unreadable(error))
        return
    if (rest := _skipped(text, at + 1)) < len(text):
        problems.at(1 + text.count("\n", 0, rest), "more stands behind the list")


def _text(path: Path, problems: Problems) -> str:
    """The whole file, empty with the mistake noted where it cannot be used."""
    try:
        if not usable(path, problems):
            return ""
        raw = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        problems.at(0, f"cannot be read: {error.strerror or error}")
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
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at

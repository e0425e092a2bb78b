"""A file's lines, and a JSONL file's objects with their line numbers; what is broken or hostile is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from clora.api import kind_of, not_a_file, open_file, quoted, reason
from clora_pictures.problems import SHOWN, Problems

#: megabytes of a list, unless the recipe says otherwise
SIZE_LIMIT = 256
MAX_LINE_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def objects(path: Path, problems: Problems, size_limit: int = SIZE_LIMIT) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that holds one; blank lines are skipped, all others noted in `problems`."""
    for number, raw in raw_lines(path, problems, size_limit):
        value = _parsed(number, raw, problems)
        if value is not None:
            yield number, value


def raw_lines(path: Path, problems: Problems, size_limit: int = SIZE_LIMIT) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank and not too long, read one by one so that none fills the memory.

    A file that is missing, too large, empty or unreadable is noted in `problems`.
    """
    found = False
    try:
        if not usable(path, problems, size_limit):
            return
        for number, raw in _lines(path, problems):
            found = True
            yield number, raw
    except OSError as error:
        problems.at(0, f"cannot be read: {reason(error.strerror or error)}")
        return
    if not found and not problems.count:
        problems.at(0, "is empty")


def usable(path: Path, problems: Problems, size_limit: int = SIZE_LIMIT) -> bool:
    """True for a file that is there and has at most `size_limit` megabytes; False with the mistake noted."""
    wrong = not_a_file(path)
    if wrong is not None:
        problems.at(0, "there is no such file" if wrong == "does not exist" else wrong)
    elif path.stat().st_size > size_limit << 20:
        problems.at(0, f"is larger than {size_limit} MB; `size_limit` of the dataset raises that")
    return not problems.count


def _lines(path: Path, problems: Problems) -> Iterator[tuple[int, bytes]]:
    with open_file(path) as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1:
                raw = raw.removeprefix(BYTE_ORDER_MARK)
            if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                problems.at(number, f"the line is longer than {MAX_LINE_BYTES >> 20} MB")
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(MAX_LINE_BYTES)
            elif raw.strip():
                yield number, raw


def _parsed(number: int, raw: bytes, problems: Problems) -> dict[str, Any] | None:
    """The line's object, or None with the mistake noted."""
    text = utf8(number, raw, problems)
    if text is None:
        return None
    reader = ObjectReader()
    try:
        value = reader.decoder.decode(text.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        problems.at(number, f"not JSON: {error.msg}", error.colno)
    except (RecursionError, ValueError) as error:
        problems.at(number, unreadable(error))
    else:
        return reader.checked(number, value, problems)
    return None


def utf8(number: int, raw: bytes, problems: Problems) -> str | None:
    """A line's text, or None with the first wrong byte noted."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.at(number, f"not UTF-8: byte {raw[error.start]:#04x}", error.start + 1)
        return None


def unreadable(error: RecursionError | ValueError) -> str:
    """Why JSON that is no nonsense is refused all the same; a ValueError is an integer of thousands of digits."""
    reason = "nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"
    return f"not JSON that can be read: {reason}"


class ObjectReader:
    """A JSON decoder for one value that remembers the first keys which stand in it twice."""

    def __init__(self) -> None:
        self.twice: list[str] = []
        self.decoder = json.JSONDecoder(object_pairs_hook=self._once)

    def _once(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            seen: set[str] = set()
            twice = dict.fromkeys(key for key, _ in pairs if key in seen or seen.add(key))
            self.twice.extend(islice(twice, max(0, SHOWN - len(self.twice))))
        return value

    def checked(self, number: int, value: object, problems: Problems) -> dict[str, Any] | None:
        """The value where it is an object without repeated keys; None with the mistakes noted."""
        for key in self.twice:
            problems.at(number, f"the key {quoted(key)} stands here twice")
        if isinstance(value, dict):
            return None if self.twice else value
        problems.at(number, f"expected an object such as {{...}}, found {kind_of(value)}")
        return None

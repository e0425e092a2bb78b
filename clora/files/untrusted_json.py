"""JSON and text from files and servers that anybody may have written: bounded before they are parsed.

Python's own parser takes NaN, lets an integer have thousands of digits, and climbs one stack frame a bracket. Whoever
reads a foreign JSON file reads it through here and gets a plain sentence instead.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from clora.errors import CloraError, escaped, quoted, reason, shown

#: a configuration or a list of settings; what may be larger says so
MAX_BYTES = 4 << 20
MAX_DEPTH = 64
#: digits of an integer: the largest that any field means has nineteen
MAX_DIGITS = 20

#: characters of a prompt, a caption or an instruction, and of a name: no text encoder reads, no file system takes more
MAX_PROMPT, MAX_NAME = 10_000, 100

_NO_BRACKETS = re.compile(r"[^\[\]{}]+")
#: characters that turn the direction of a line around
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def read_json(path: Path, most: int = MAX_BYTES, digits: int = MAX_DIGITS, *, once: bool = False) -> Any:
    """The value of a JSON file. Raises CloraError, with the file and without its content, where it cannot be read."""
    return parse_json(read_text(path, most), shown(path), digits, once=once)


def read_map(path: Path, most: int = MAX_BYTES, digits: int = MAX_DIGITS, *, once: bool = False) -> dict[str, Any]:
    """The map that a JSON file holds. Raises CloraError as `read_json` does, and where it is no map."""
    tree = read_json(path, most, digits, once=once)
    if not isinstance(tree, dict):
        raise CloraError(f"{shown(path)}: is no JSON map but {kind_of(tree)}")
    return tree


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """A UTF-8 file of at most so many bytes. Raises CloraError with the reason."""
    try:
        if path.exists() and not path.is_file():
            raise CloraError(f"{shown(path)}: is no file")
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except FileNotFoundError:
        raise CloraError(f"{shown(path)}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise CloraError(
            f"{shown(path)}: cannot be read: {reason(getattr(error, 'strerror', None) or error)}"
        ) from None
    if len(raw) > most:
        raise CloraError(f"{shown(path)}: is larger than the {most:,} bytes that are read of such a file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CloraError(f"{shown(path)}: is no text in UTF-8") from None


def parse_json(text: str, where: str, digits: int = MAX_DIGITS, *, once: bool = False) -> Any:
    """The value of a JSON text; `where` begins the message. Raises CloraError for what is no plain JSON.

    Refused: deeper than MAX_DEPTH, integers of more than `digits` digits, floats beyond their range, NaN, infinity;
    with `once` a key that stands twice in one map.
    """
    if _depth(text) > MAX_DEPTH:
        raise CloraError(f"{where}: is nested deeper than {MAX_DEPTH} levels")
    try:
        return json.loads(
            text,
            parse_constant=_no_constant,
            parse_int=partial(_integer, digits),
            parse_float=_float,
            object_pairs_hook=_once if once else None,
        )
    except json.JSONDecodeError as error:
        raise CloraError(f"{where}: is no JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise CloraError(f"{where}: is no JSON that can be read: {reason(error)}") from None


def number_of(
    tree: Mapping[str, Any], key: str, where: str, low: float, high: float, default: float | None = None
) -> float:
    """A finite number of a map within its bounds; the default where the key is missing.

    Raises CloraError, naming `where` and the key, for another type, another range, or a missing key without default.
    """
    value = tree.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise CloraError(f"{where}: {key} must be a number, found {kind_of(value)}")
    if not low <= value <= high:
        raise CloraError(f"{where}: {key} must be between {low:g} and {high:g}, found {quoted(value)}")
    return value


def integer_of(tree: Mapping[str, Any], key: str, where: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number of a map within its bounds, as `number_of`."""
    value = tree.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise CloraError(f"{where}: {key} must be a whole number, found {kind_of(value)}")
    return int(number_of({key: value}, key, where, low, high))


def kind_of(value: object) -> str:
    """What a JSON value is, in the words of a message: `null`, `a list`, `the text 'abc'`, `the number 3`."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, int | float):
        return f"the number {quoted(value)}"
    return {list: "a list", dict: "a map"}.get(type(value), type(value).__name__)


def json_size(text: str) -> tuple[int, int]:
    """How deeply a JSON text's brackets are nested, and about how many values and keys it holds.

    The count is exact for JSON, but for empty lists and maps, which count one more.
    """
    outside = _outside_texts(text)
    return _depth(text), 1 + sum(map(outside.count, "[{,:"))


def text_problem(text: str, most: int) -> str | None:
    """Why a text can be no prompt and no name, in words that follow "it"; None where it can.

    Refused: more than `most` characters; control characters but tab and line end; what turns the direction of a line
    around; Unicode's own line and paragraph separators; lone surrogates, which no file name and no tokenizer takes.
    """
    if len(text) > most:
        return f"has {len(text):,} characters; at most {most:,} are read"
    if text.isprintable():
        return None
    for letter in text:
        if letter in "\t\n\r" or letter.isprintable():
            continue
        category = unicodedata.category(letter)
        if category == "Cs":
            return "holds half a character (a lone surrogate)"
        if category in ("Cc", "Zl", "Zp"):
            return f"holds a control character, {escaped(letter)}"
        if letter in _DIRECTION:
            return f"holds a character that turns the direction of text, {escaped(letter)}"
    return None


def _depth(text: str) -> int:
    """How deeply brackets are nested, those inside texts left out; no work per letter, however long a text is."""
    brackets = _NO_BRACKETS.sub("", _outside_texts(text))
    return max(accumulate(1 if sign in "[{" else -1 for sign in brackets), default=0)


def _outside_texts(text: str) -> str:
    """What stands outside of quotation marks: with backslashes in pairs gone, each of them begins or ends a text."""
    return "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])


def _is_finite(value: float) -> bool:
    """True for a number that a float can be; an integer of hundreds of digits cannot."""
    try:
        return isfinite(value)
    except OverflowError:
        return False


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _integer(most: int, digits: str) -> int:
    if len(digits) > most:
        raise ValueError(f"an integer of {len(digits):,} digits; at most {most} mean anything here")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise ValueError("a number beyond the range of floats")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {quoted(twice)} stands twice in one map")
    return tree

"""JSON files that carry their own checksum, as their last key: nothing in them is believed before it is right."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clora.errors import CloraError, shown
from clora.files.atomic import write_atomic
from clora.files.untrusted_json import kind_of, parse_json, read_text
from clora.runs.files.checksums import DamagedError, checksum_of

#: bytes that are read of a run's JSON file: an evaluation of 10,000 pictures has some 10 MB
MAX_BYTES = 256 << 20
KEY = "checksum"
_SEAL = re.compile(rf',?\s*"{KEY}": "([0-9a-f]{{32}})"\s*}}\s*\Z')
_OPEN = "0" * 32


def sealed(name: str, content: Mapping[str, Any], indent: int | None = 2) -> str:
    """A JSON text of the content and, last, the checksum over all other bytes of it and the name."""
    text = json.dumps({**content, KEY: _OPEN}, indent=indent, allow_nan=False)
    head, tail = text[: text.rindex(_OPEN)], text[text.rindex(_OPEN) + len(_OPEN) :]
    return f"{head}{checksum_of(name, text.encode())}{tail}"


def unsealed(name: str, text: str, where: str) -> dict[str, Any]:
    """The content of a text that `sealed` made.

    Raises DamagedError, which begins with `where`: it is no JSON map, has no checksum, or has changed since.
    """
    found = _SEAL.search(text)
    whole = found is not None and checksum_of(name, _opened(text, found).encode("utf-8", "surrogatepass")) == found[1]
    try:
        content = parse_json(text, "") if text.strip() else None
    except CloraError as error:
        raise DamagedError(f"{where} is damaged: it{str(error).removeprefix(':')}") from None
    if not isinstance(content, dict):
        raise DamagedError(f"{where} is damaged: it holds no map but {kind_of(content) if text.strip() else 'nothing'}")
    if found is None:
        raise DamagedError(f"{where} is damaged: it has no checksum")
    if not whole:
        raise DamagedError(f"{where} has changed since it was written: its checksum is wrong")
    del content[KEY]
    return content


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with its checksum, in one step. Raises CloraError where the disk refuses."""
    write_atomic(path, sealed(path.name, content) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a JSON file that `write_sealed` wrote.

    Raises FileNotFoundError where there is none, and DamagedError for one that is not as it was written.
    """
    try:
        there = path.exists()
    except OSError:
        there = True  # what cannot be looked at is told below
    if not there:
        raise FileNotFoundError(path)
    try:
        text = read_text(path, MAX_BYTES)
    except CloraError as error:
        raise DamagedError(
            f"{shown(path)} is damaged: it{str(error).removeprefix(shown(path)).removeprefix(':')}"
        ) from None
    return unsealed(path.name, text, shown(path))


def _opened(text: str, found: re.Match[str]) -> str:
    """The text as it was hashed: without the final line feed, and with zeros for the checksum."""
    return f"{text[: found.start(1)]}{_OPEN}{text[found.end(1) :].removesuffix(chr(10))}"

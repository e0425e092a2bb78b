"""What may be a text, a path or a folder's name at all: asked before anything is opened or written under it.

Each rule returns the end of a sentence (`holds a NUL character`), or None where nothing is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clora.errors import escaped, quoted

#: characters of one text of a recipe, of one key, and of a component's own name below `losses`, `metrics`, ...
MAX_TEXT, MAX_KEY, MAX_COMPONENT_NAME = 10_000, 100, 64
#: bytes of a run's name: NAME-HASH and the temporary names beside it must fit into the 255 of a file system
MAX_NAME_BYTES = 100
MAX_TITLE = 200
#: bytes of one part of a path and of a whole one (Linux; without its closing NUL)
MAX_PART_BYTES, MAX_PATH_BYTES = 255, 4095
#: signs that separate folders or that some file system refuses
_NOT_IN_NAMES = '/\\:*?"<>|'


def text_problem(text: str, most: int = MAX_TEXT) -> str | None:
    """What keeps a text from being written to a file or handed to another program."""
    if len(text) > most:
        return f"has {len(text):,} characters; at most {most:,} are read"
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "holds half a character (a lone surrogate, or a byte that is not UTF-8)"
    return None


def path_problem(path: str | Path) -> str | None:
    """What keeps a path from being one on any file system."""
    text = str(path)
    problem = text_problem(text)
    if problem is not None:
        return problem
    if len(text.encode("utf-8")) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES:,} bytes"
    longest = max(len(part.encode("utf-8")) for part in text.split("/"))
    if longest > MAX_PART_BYTES:
        return f"has a part of {longest:,} bytes; at most {MAX_PART_BYTES} make a name"
    return None


def folder_name_problem(name: str) -> str | None:
    """What keeps a name from being that of a run's folder."""
    problem = text_problem(name)
    if problem is not None:
        return problem
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes, and a folder is named by it"
    if escaped(name) != name:
        return "holds a character that cannot be printed, and a folder is named by it"
    wrong = next((sign for sign in name if sign in _NOT_IN_NAMES), None)
    if wrong is not None:
        return f"holds {wrong}, which no folder's name may"
    if name != name.strip() or name.startswith("."):
        return "begins with a dot, or begins or ends with a space, which no run's folder may"
    return None


def is_folder_name(instance: Any, attribute: Any, value: str) -> None:
    """attrs validator: the name of a run's folder, or nothing. Raises ValueError."""
    problem = folder_name_problem(value) if value else None
    if problem is not None:
        raise ValueError(f"{quoted(value)} {problem}")


def is_one_line(instance: Any, attribute: Any, value: str) -> None:
    """attrs validator: one line of characters that can be printed, at most MAX_TITLE of them. Raises ValueError."""
    if len(value) > MAX_TITLE:
        raise ValueError(f"{quoted(value)} has {len(value):,} characters; at most {MAX_TITLE} make a title")
    if escaped(value) != value:
        raise ValueError(f"{quoted(value)} holds a character that cannot be printed; a title is one line")

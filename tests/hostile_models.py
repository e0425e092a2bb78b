"""What a model's small files may be made into by somebody who means ill, or by a broken disk.

Each value is put in the place of one field, each change in the place of one file, of a copy whose large files are
shared with the original.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Keypath = tuple[Any, ...]

#: JSON texts that stand in for a field's value
VALUES: Mapping[str, str] = {
    "null": "null",
    "an empty list": "[]",
    "an empty map": "{}",
    "a word": '"x"',
    "an empty text": '""',
    "true": "true",
    "-1": "-1",
    "0": "0",
    "1e-320": "1e-320",
    "1e308": "1e308",
    "NaN": "NaN",
    "10^6": "1000000",
    "10^9": "1000000000",
    "10^60": "1" + "0" * 60,
    "5,000 digits": "9" * 5_000,
    "10^6 digits": "9" * 10**6,
    "300,000 letters": json.dumps("A" * 300_000),
    "100,000 brackets": "[" * 100_000 + "]" * 100_000,
    "escapes": json.dumps("\x1b[2J\u202e\nroot"),
}
#: what no message may repeat
FOREIGN = ("A" * 70, "9" * 70, "[" * 20, "\x1b", "\u202e", "root:x:")


def _written(raw: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(raw.encode() if isinstance(raw, str) else raw)


def _twice(path: Path, before: str) -> None:
    path.write_text(before.rstrip()[:-1] + ", " + before.lstrip()[1:])


#: what stands in for a whole file
FILES: Mapping[str, Callable[[Path], object]] = {
    **{f"only {name}": _written(raw) for name, raw in VALUES.items()},
    "empty": _written(b""),
    "binary": _written(bytes(range(256)) * 20),
    "half a text": _written('{"a": "b'),
    "5 MB": _written(json.dumps({"a": ["A" * 1000] * 5_000})),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a dangling link": lambda path: path.symlink_to("nowhere/at/all"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to /etc/passwd": lambda path: path.symlink_to("/etc/passwd"),
}


def linked(model: Path, to: Path) -> Path:
    """A copy of a model whose files are the same ones on the disk; replace them, never write into them."""
    return shutil.copytree(model, to, copy_function=os.link)


def small_files(model: Path) -> list[Path]:
    """The JSON files of a model, sorted."""
    return sorted(model.rglob("*.json"))


def fields(file: Path, depth: int = 3) -> list[Keypath]:
    """The keys of a JSON file and of the maps in it, and the first item of each list."""
    return list(_fields(json.loads(file.read_text()), (), depth))


def _fields(value: Any, path: Keypath, depth: int) -> Iterator[Keypath]:
    if path:
        yield path
    if len(path) < depth:
        items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
        for key, inner in items:
            yield from _fields(inner, (*path, key), depth)


@contextmanager
def field_set(file: Path, path: Keypath, raw: str) -> Iterator[None]:
    """Within it, one field of a JSON file has the value that a JSON text says."""
    tree = json.loads(file.read_text())
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "@hostile@"
    with replaced(file, _written(json.dumps(tree).replace('"@hostile@"', raw))):
        yield


@contextmanager
def replaced(file: Path, change: Callable[[Path], object]) -> Iterator[None]:
    """Within it, something else stands in a file's place."""
    kept = file.rename(file.with_name(f".{file.name}.kept"))
    try:
        change(file)
        yield
    finally:
        if file.is_dir() and not file.is_symlink():
            file.rmdir()
        else:
            file.unlink()
        kept.rename(file)


def doubled(file: Path) -> Callable[[Path], object]:
    """A change that names every key of a JSON map twice."""
    before = file.read_text()
    return lambda path: _twice(path, before)


def assert_plain(message: str, file: Path | str) -> None:
    """A message names its file, is one short line, and repeats nothing foreign."""
    assert str(file) in message, message[:500]
    assert "\n" not in message, message[:500]
    assert len(message) < 600 + 2 * len(str(file)), message[:700]
    assert not any(foreign in message for foreign in FOREIGN), message[:700]


def drive(model: Path, check: Callable[[], list[str]], every: int) -> dict[str, int]:
    """Put hostile files and fields into a model, one at a time, and see that `check` tells each or that it may pass.

    Every file is replaced in every way that is no JSON, and of the JSON values, for files and fields, each in turn is
    one of `every`. Returns how many were told and how many passed. A traceback ends it.
    """
    counts = {"told": 0, "passed": 0}
    number = 0

    def see() -> None:
        problems = check()
        counts["told" if problems else "passed"] += 1
        for problem in problems:
            assert_plain(problem, model)

    for file in small_files(model):
        for name, change in {**FILES, "every key twice": doubled(file)}.items():
            number += 1
            if not name.startswith("only") or number % every == 0:
                with replaced(file, change):
                    see()
        for path in fields(file, 1 if file.name == "tokenizer.json" else 3):
            for raw in VALUES.values():
                number += 1
                if number % every == 0:
                    with field_set(file, path, raw):
                        see()
    return counts

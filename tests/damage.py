"""Ways to damage a file, and a small finished run whose files are damaged one after the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from shallow_emoji import shallow_emoji

RECIPE = Path(__file__).parents[1] / "recipes/collection.yaml"
SETS = (
    *shallow_emoji(),
    "effects=[duotone_ocean, thermal]",
    "student.rank=2",
    "student.steps=3",
    "train.steps=4",
    "warm_start=null",
    "train.batch_size=2",
    "train.checkpoint_every=2",
    "critic.updates=1",
    "teacher.steps=1",
    "evaluate.images=1",
    "evaluate.general_images=1",
    "prepare.train_images=2",
    "prepare.general_images=2",
    "prepare.previews=1",
    "prepare.batch_size=2",
)


def _flip(place: float) -> Callable[[Path], None]:
    """One bit of the byte at this share of the file."""

    def flip(path: Path) -> None:
        raw = bytearray(path.read_bytes())
        raw[int(place * (len(raw) - 1))] ^= 4
        path.write_bytes(bytes(raw))

    return flip


def _holds(content: bytes) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.write_bytes(content)

    return replace


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_text("of somebody's")


def _text_for_numbers(path: Path) -> None:
    """The first number after a colon becomes a text; what has none is cut in the middle."""
    raw = path.read_bytes()
    for digit in b"0123456789":
        if (at := raw.find(b": " + bytes([digit]))) > 0:
            path.write_bytes(raw[: at + 2] + b'"soon"' + raw[at + 3 :])
            return
    path.write_bytes(raw[: len(raw) // 2])


def _other_of_its_kind(path: Path) -> None:
    """The content of another file of the same ending in the same or a neighbouring folder; else a stranger's JSON."""
    near = [path.parent, *(folder for folder in sorted(path.parent.parent.iterdir()) if folder.is_dir())]
    files = [file for folder in near for file in sorted(folder.iterdir()) if file.is_file() and file != path]
    other = next((file for file in files if file.suffix == path.suffix and file.name[0] != "."), None)
    content = b'{"hello": 1}' if other is None else other.read_bytes()
    path.write_bytes(content if content != path.read_bytes() else b"")


#: a name and what it does to a file
WAYS: dict[str, Callable[[Path], None]] = {
    "first byte flipped": _flip(0.0),
    "header byte flipped": _flip(0.02),
    "middle byte flipped": _flip(0.5),
    "late byte flipped": _flip(0.9),
    "last byte flipped": _flip(1.0),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3]) and None,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0more") and None,
    "emptied": _holds(b""),
    "an empty map": _holds(b"{}"),
    "an empty list": _holds(b"[]"),
    "null": _holds(b"null"),
    "a number": _holds(b"7"),
    "a text": _holds(b'"text"'),
    "NaN": _holds(b"NaN"),
    "binary": _holds(bytes(range(256)) * 3),
    "a text for a number": _text_for_numbers,
    "nested deeply": _holds(b"[" * 100_000),
    "a folder": _folder,
    "deleted": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name(f"{path.stem}-old{path.suffix}")) and None,
    "another of its kind": _other_of_its_kind,
}


def copy_of(runs: Path, to: Path) -> Path:
    """A copy of a whole folder of runs with hard links: damage breaks the link of its file first."""
    shutil.copytree(runs, to, copy_function=os.link)
    return to


def damage(path: Path, way: str) -> None:
    """Do it to a file of a copy; the original is another file then."""
    own = path.with_name(f"{path.name}.own")
    shutil.copyfile(path, own)
    own.replace(path)
    WAYS[way](path)

"""One folder of pictures as rows: pairs of one name, single pictures with captions, or the list that lies in it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from clora_pictures.pictures import located
from clora_pictures.problems import Problems, nearest_name
from clora_pictures.rows import SPLITS, Asked, Row, Sheet, read_list

#: what is taken for a picture in a folder; a list may name files of any ending
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
#: pictures that are not read: passed over in silence they would be missed
FOREIGN = frozenset({".heic", ".heif", ".jxl", ".psd", ".svg", ".eps", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".exr"})
LISTS = ("metadata.jsonl", "metadata.csv", "metadata.json")
SOURCES = ("source", "control")
MAX_FILES = 1_000_000
MAX_CAPTION_BYTES = 64 << 10


@frozen
class Folder:
    """The pictures of a folder, hidden ones left out; `stems` are their paths without endings."""

    path: Path  # resolved
    problems: Problems = field(repr=False)
    stems: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, *, below: bool) -> Folder:
        """The folder's pictures by stem, `below` it too; two pictures of one stem are noted."""
        problems, stems = Problems(path), dict[str, str]()
        folder = path.resolve()
        if not path.is_dir():
            problems.at(0, "there is no such folder")
        for name in _pictures(folder, below, problems) if path.is_dir() else ():
            stem = _stem(name)
            if stem in stems:
                problems.at(0, f"{stems[stem]!r} and {name!r} have one name; keep one of them")
            else:
                stems[stem] = name
        return cls(folder, problems, stems)


def read_folder(path: Path, asked: Asked) -> list[Sheet]:
    """The rows of one effect's folder, or the general stream's, whichever way it is laid out."""
    try:
        names = visible(path)
    except OSError as error:
        return [told(path, f"cannot be read: {error.strerror or error}")]
    if lists := [name for name in LISTS if name in names]:
        if len(lists) > 1:
            return [told(path, f"has {' and '.join(lists)}; keep one of them")]
        return [read_list(path / lists[0], asked)]
    folders = {name for name in names if _holds_pictures(path / name)}
    if folders & {*SOURCES, "target"}:
        return _named_pair(path, folders, asked)
    if folders & {*SPLITS} and asked.split is None:
        splits = [split for split in SPLITS if split in folders]
        return [sheet for split in splits for sheet in read_folder(path / split, evolve(asked, split=split))]
    if folders:
        listed = ", ".join(sorted(folders)[:5])
        return [told(path, f"what its folders are is not said ({listed}); write {{source: ..., target: ...}}")]
    return read_pair(path, None, asked)


def _named_pair(path: Path, folders: set[str], asked: Asked) -> list[Sheet]:
    sources = [name for name in SOURCES if name in folders]
    if len(sources) != 1:
        found = "'source' and 'control'" if sources else "'target', but no 'source'"
        return [told(path, f"has a folder {found}; one folder holds the sources")]
    return read_pair(path / sources[0], path / "target" if "target" in folders else None, asked)


def read_pair(source: Path, target: Path | None, asked: Asked) -> list[Sheet]:
    """The pictures of a folder, each with that of the same name in another: `a/one.png` and `a/one.jpg` are a pair.

    A source may lack a target, but not a target its source. In the general stream the words lie in a `.txt` of the
    picture's name, beside the source or the target.
    """
    sources = Folder.read(source, below=True)
    targets = None if target is None else Folder.read(target, below=True)
    if not sources.stems and not sources.problems.count:
        sources.problems.at(0, "has no pictures")
    rows: list[Row] = []
    for stem, name in sources.stems.items():
        beside = None if targets is None else targets.stems.get(stem)
        at = None if targets is None or beside is None else targets.path / beside
        words = _caption(sources, name, at) if asked.stream == "general" else ""
        if words is not None:
            rows.append(Row(0, sources.path / name, name, asked.effect or "", at, words, asked.split))
    if targets is None:
        return [Sheet(tuple(rows), sources.problems)]
    for stem, name in targets.stems.items():
        if stem not in sources.stems:
            meant = nearest_name(stem, sources.stems)
            hint = f"; did you mean {sources.stems[meant]!r}?" if meant else ""
            targets.problems.at(0, f"{name!r} has no source of that name in {source}{hint}")
    return [Sheet(tuple(rows), sources.problems), Sheet((), targets.problems)]


def _caption(sources: Folder, name: str, target: Path | None) -> str | None:
    """The words of a picture's caption, lines joined; None where there are none, with the mistake noted."""
    beside = [(sources.path / name).with_suffix(".txt")]
    beside += [] if target is None else [target.with_suffix(".txt")]
    found: list[str] = []
    for path in beside:
        try:
            if not path.is_file():
                continue
            if path.is_symlink() or path.stat().st_size > MAX_CAPTION_BYTES:
                sources.problems.at(0, f"{path} is a link or larger than {MAX_CAPTION_BYTES >> 10} KB")
                return None
            found.append(" ".join(path.read_bytes().decode("utf-8-sig").split()))
        except (OSError, UnicodeDecodeError) as error:
            reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
            sources.problems.at(0, f"{path} {reason}")
            return None
    if len(set(found)) > 1:
        sources.problems.at(0, f"{beside[0]} and {beside[1]} differ; keep one of them")
    elif not found or not found[0]:
        state = "is empty" if found else "is missing"
        sources.problems.at(0, f"{name!r}: its instruction {state}; write what it is to become into {beside[0].name}")
    else:
        return found[0]
    return None


def _pictures(folder: Path, below: bool, problems: Problems) -> list[str]:
    """The pictures' paths below the folder, sorted; what leads out of it is noted."""
    found: list[str] = []
    for place, folders, files in os.walk(folder, onerror=lambda error: problems.at(0, f"cannot be read: {error}")):
        folders[:] = sorted(name for name in folders if not _hidden(name)) if below else []
        for name in folders:
            if os.path.islink(os.path.join(place, name)):
                linked = os.path.relpath(os.path.join(place, name), folder)
                problems.at(0, f"{linked!r} is a linked folder; name the folder itself")
        for name in (os.path.relpath(os.path.join(place, name), folder) for name in files if not _hidden(name)):
            ending = os.path.splitext(name)[1].lower()
            if ending in ENDINGS:
                found.append(name)
            elif ending in FOREIGN:
                problems.at(0, f"{name!r} is of a kind that is not read; save it as PNG or JPEG")
        if len(found) > MAX_FILES:
            problems.at(0, f"has more than {MAX_FILES:,} pictures")
            return []
    return [name for name in sorted(found) if _inside(folder, name, problems)]


def _holds_pictures(path: Path) -> bool:
    """True for a folder with a picture at any depth; trainers leave folders without any, such as caches."""
    walked = os.walk(path) if path.is_dir() else ()
    return any(os.path.splitext(name)[1].lower() in ENDINGS for _, _, files in walked for name in files)


def _inside(folder: Path, name: str, problems: Problems) -> bool:
    try:
        name.encode()
        if os.path.islink(folder / name):
            located(folder, name)
    except UnicodeEncodeError:
        problems.at(0, f"{name!r}: the file's name is not UTF-8")
    except ValueError as error:
        problems.at(0, str(error))
    else:
        return True
    return False


def visible(path: Path) -> list[str]:
    """The names in a folder, sorted, without what systems and programs hide in it."""
    return sorted(name for name in os.listdir(path) if not _hidden(name))


def told(path: Path, sentence: str) -> Sheet:
    """A folder that gives no rows for one reason."""
    problems = Problems(path)
    problems.at(0, sentence)
    return Sheet((), problems)


def _hidden(name: str) -> bool:
    return name.startswith((".", "__"))  # .DS_Store, .ipynb_checkpoints, __MACOSX


def _stem(name: str) -> str:
    """The path without its ending; a Mac writes é as two characters where others write one."""
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])

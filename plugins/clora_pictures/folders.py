"""One folder of pictures as rows: pairs of one name, single pictures with captions, or the list that lies in it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from clora.api import (
    MAX_PROMPT,
    OutsideError,
    UnusablePathError,
    located,
    open_file,
    quoted,
    reason,
    shown,
    text_problem,
)
from clora_pictures.pictures import FOLLOW, picture_at
from clora_pictures.problems import Problems, nearest_name
from clora_pictures.rows import SPLITS, Asked, Row, Sheet, read_list

#: what is taken for a picture in a folder; a list may name files of any ending
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
#: pictures that are not read: passed over in silence they would be missed
FOREIGN = frozenset({".heic", ".heif", ".jxl", ".psd", ".svg", ".eps", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".exr"})
LISTS = ("metadata.jsonl", "metadata.csv", "metadata.json")
SOURCES = ("source", "control")
MAX_FILES = 1_000_000
#: names in a folder, whatever they are, and folders inside one another
MAX_NAMES, MAX_DEPTH = 5_000_000, 40
MAX_CAPTION_BYTES = 64 << 10


@frozen
class Folder:
    """The pictures of a folder, hidden ones left out; `stems` are their paths without endings."""

    path: Path  # resolved
    problems: Problems = field(repr=False)
    stems: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, *, follow_links: bool) -> Folder:
        """The folder's pictures by stem, below it too; two pictures of one stem are noted."""
        problems, stems = Problems(path), dict[str, str]()
        folder = path.resolve()
        if not path.is_dir():
            problems.at(0, "there is no such folder")
        for name in _pictures(folder, follow_links, problems) if path.is_dir() else ():
            stem = _stem(name)
            if stem in stems:
                problems.at(0, f"{quoted(stems[stem])} and {quoted(name)} have one name; keep one of them")
            else:
                stems[stem] = name
        return cls(folder, problems, stems)


def read_folder(path: Path, asked: Asked) -> list[Sheet]:
    """The rows of one effect's folder, or the general stream's, whichever way it is laid out."""
    asked = asked if asked.root is not None else evolve(asked, root=path)
    try:
        names = visible(path)
    except OSError as error:
        return [told(path, f"cannot be read: {reason(error.strerror or error)}")]
    used = [name for name in names if name in (*LISTS, *SOURCES, "target", *SPLITS)]
    if out := [sentence for name in used if (sentence := linked_out(path / name, asked)) is not None]:
        return [told(path, sentence) for sentence in out]
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
        listed = ", ".join(quoted(name)[1:-1] for name in sorted(folders)[:5])
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
    follow = asked.rules.follow_links
    sources = Folder.read(source, follow_links=follow)
    targets = None if target is None else Folder.read(target, follow_links=follow)
    if not sources.stems and not sources.problems.count:
        sources.problems.at(0, "has no pictures")
    rows: list[Row] = []
    for stem, name in sources.stems.items():
        beside = None if targets is None else targets.stems.get(stem)
        at = None if targets is None or beside is None else targets.path / beside
        words = _caption(sources, name, at, follow) if asked.stream == "general" else ""
        if words is not None:
            rows.append(Row(0, sources.path / name, name, asked.effect or "", at, words, asked.split))
    if targets is None:
        return [Sheet(tuple(rows), sources.problems)]
    for stem, name in targets.stems.items():
        if stem not in sources.stems:
            meant = None if targets.problems.advised else nearest_name(stem, sources.stems)
            hint = f"; did you mean {quoted(sources.stems[meant])}?" if meant else ""
            targets.problems.at(0, f"{quoted(name)} has no source of that name in {shown(source)}{hint}")
    return [Sheet(tuple(rows), sources.problems), Sheet((), targets.problems)]


def linked_out(path: Path, asked: Asked) -> str | None:
    """The sentence about a list or folder whose link leads out of the folder that the recipe names, or None."""
    root = asked.root or path
    try:
        located(path.relative_to(root), (root.resolve(),), follow_links=asked.rules.follow_links)
    except OutsideError:
        return f"{quoted(path.name)} is a link that leads out of the folder; {FOLLOW}"
    except UnusablePathError as error:
        return str(error)
    return None


def _caption(sources: Folder, name: str, target: Path | None, follow_links: bool) -> str | None:
    """The words of a picture's caption, lines joined; None where there are none, with the mistake noted."""
    beside = [(sources.path / name).with_suffix(".txt")]
    beside += [] if target is None else [target.with_suffix(".txt")]
    found: list[str] = []
    for path in beside:
        try:
            text = _caption_of(path, follow_links)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            sources.problems.at(0, f"{shown(path)} {_unread(error)}")
            return None
        found += [] if text is None else [text]
    if len(set(found)) > 1:
        sources.problems.at(0, f"{shown(beside[0])} and {shown(beside[1])} differ; keep one of them")
    elif not found or not found[0]:
        state, written = "is empty" if found else "is missing", quoted(beside[0].name)[1:-1]
        sources.problems.at(0, f"{quoted(name)}: its instruction {state}; write what it is to become into {written}")
    else:
        return found[0]
    return None


def _caption_of(path: Path, follow_links: bool) -> str | None:
    """A caption's words, None where there is no such file. Raises OSError, UnicodeDecodeError, ValueError."""
    if not os.path.lexists(path):
        return None
    if path.is_symlink():
        try:
            linked = located(path.name, (path.parent,), follow_links=follow_links)
        except OutsideError:
            raise ValueError(f"is a link that leads out of its folder; {FOLLOW}") from None
        if not follow_links and linked != path:  # ... a link within the folder never was followed
            raise ValueError(f"is a link; {FOLLOW}")
    with open_file(path) as file:
        raw = file.read(MAX_CAPTION_BYTES + 1)
    if len(raw) > MAX_CAPTION_BYTES:
        raise ValueError(f"is larger than {MAX_CAPTION_BYTES >> 10} KB; an instruction is a sentence or a few")
    words = " ".join(raw.decode("utf-8-sig").split())
    if (wrong := text_problem(raw.decode("utf-8-sig").strip(), MAX_PROMPT)) is not None:
        raise ValueError(f"{wrong}: {quoted(words)}")
    return words


def _unread(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    return f"cannot be read: {reason(error.strerror or error)}" if isinstance(error, OSError) else str(error)


def _pictures(folder: Path, follow_links: bool, problems: Problems) -> list[str]:
    """The pictures' paths below the folder, sorted; what leads out of it is noted."""
    found: list[str] = []
    seen = 0
    for place, folders, files in walked(folder, problems, hidden=False):
        seen += len(folders) + len(files)
        for name in folders:
            if os.path.islink(os.path.join(place, name)):
                linked = os.path.relpath(os.path.join(place, name), folder)
                problems.at(0, f"{quoted(linked)} is a linked folder; name the folder itself")
        for name in (os.path.relpath(os.path.join(place, name), folder) for name in files if not _hidden(name)):
            ending = os.path.splitext(name)[1].lower()
            if ending in ENDINGS:
                found.append(name)
            elif ending in FOREIGN:
                problems.at(0, f"{quoted(name)} is of a kind that is not read; save it as PNG or JPEG")
        if len(found) > MAX_FILES or seen > MAX_NAMES:
            many = f"{MAX_FILES:,} pictures" if len(found) > MAX_FILES else f"{MAX_NAMES:,} names"
            problems.at(0, f"has more than {many}")
            return []
    return [name for name in sorted(found) if _inside(folder, name, follow_links, problems)]


def walked(
    folder: Path, problems: Problems | None = None, *, hidden: bool = True
) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` as deep as MAX_DEPTH, without `hidden` folders where asked; what is unreadable or deeper is noted."""

    def unread(error: OSError) -> None:
        if problems is not None:
            problems.at(0, f"cannot be read: {reason(error.strerror or error)}")

    depth = str(folder).count(os.sep)
    for place, folders, files in os.walk(folder, onerror=unread):
        folders[:] = sorted(name for name in folders if hidden or not _hidden(name))
        if folders and place.count(os.sep) - depth >= MAX_DEPTH:
            if problems is not None:
                problems.at(0, f"has more than {MAX_DEPTH} folders inside one another")
            folders.clear()
        yield place, folders, files


def _holds_pictures(path: Path) -> bool:
    """True for a folder with a picture at any depth; trainers leave folders without any, such as caches."""
    found = walked(path) if path.is_dir() else ()
    return any(os.path.splitext(name)[1].lower() in ENDINGS for _, _, files in found for name in files)


def _inside(folder: Path, name: str, follow_links: bool, problems: Problems) -> bool:
    try:
        name.encode()
        if os.path.islink(folder / name):
            picture_at(name, folder, follow_links)
    except UnicodeEncodeError:
        problems.at(0, f"{quoted(name)}: the file's name is not UTF-8")
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

"""The manifest: a list of teachers in YAML, JSON or JSONL, read with the line of every word for the mistakes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from attrs import frozen

from clora.api import EffectCard, PictureRow, YamlError, compose, not_a_file, open_file, quoted, reason, shown
from clora_teachers.entry import Entry, read_entry
from clora_teachers.json_nodes import TooMuchError, json_lines, json_root
from clora_teachers.paths import Folders
from clora_teachers.problems import Problems

#: values and keys that a megabyte of a manifest may hold; one of a thousand teachers has twenty thousand
NODES_A_MEGABYTE = 50_000
_RAISED = "`size_limit` of the bank raises that"


@frozen
class Manifest:
    """What a manifest says: the cards of the entries without mistakes, every entry's (name, LoRA file), all mistakes.

    A mistake is one sentence with file:line; an entry that has one still names its file. `pictures` are the pairs.
    """

    cards: tuple[EffectCard, ...] = ()
    files: tuple[tuple[str, Path], ...] = ()
    problems: tuple[str, ...] = ()
    pictures: tuple[PictureRow, ...] = ()


def read_manifest(
    path: Path, lora_folder: Path | None = None, *, follow_links: bool = False, size_limit: int = 4
) -> Manifest:
    """Read it whole; LoRA files lie in its folder or, where it is given, in `lora_folder`. Raises nothing.

    `follow_links` lets links lead out of these folders; `size_limit` in megabytes bounds the file.
    """
    problems = Problems(path)
    text = _text(path, size_limit, problems)
    root = None if text is None else _nodes(text, size_limit, problems)
    if root is None:
        return Manifest(problems=problems.sentences())
    if not isinstance(root, yaml.SequenceNode) or (not root.value and not problems.found):
        begins = '[{"name": ...' if problems.notation == "JSON" else "- name:"
        problems.at(root, f"a bank is a list of teachers, each a mapping that begins `{begins}`")
        return Manifest(problems=problems.sentences())
    loras = lora_folder.resolve() if lora_folder is not None else None
    folders = Folders(path.parent.resolve(), loras, follow_links)
    entries: list[Entry] = []
    for node in root.value:
        if problems.full:
            break
        entry = read_entry(node, folders, problems)
        entries += [] if entry is None else [entry]
    for sentence in _doubles(entries):
        problems.at(*sentence)
    cards = tuple(entry.card for entry in entries if entry.card is not None)
    files = tuple((entry.words.get("name", entry.lora.stem), entry.lora) for entry in entries if entry.lora)
    return Manifest(cards, files, problems.sentences(), tuple(_pictures(entries, path)))


def _pictures(entries: list[Entry], path: Path) -> Iterator[PictureRow]:
    """The pairs of the entries without mistakes, each with its line."""
    for entry in entries:
        if entry.card is not None and entry.card.pairs:
            for node, (before, after) in zip(entry.nodes["pairs"].value, entry.card.pairs, strict=True):
                yield PictureRow(f"{shown(path)}:{node.start_mark.line + 1}", before, after, entry.card.name)


def _text(path: Path, size_limit: int, problems: Problems) -> str | None:
    try:
        wrong = not_a_file(path)
        if wrong is not None:
            problems.say("there is no such manifest" if wrong == "does not exist" else f"the manifest {wrong}")
            return None
        with open_file(path) as file:
            raw = file.read((size_limit << 20) + 1)
        if len(raw) <= size_limit << 20:
            return raw.decode("utf-8-sig")
        problems.say(f"the manifest is larger than {size_limit} MB; {_RAISED}")
    except UnicodeDecodeError:
        problems.say("the manifest is not text in UTF-8")
    except OSError as error:
        problems.say(f"cannot be read: {reason(error.strerror or error)}")
    return None


def _nodes(text: str, size_limit: int, problems: Problems) -> yaml.Node | None:
    """The manifest's tree of nodes, which constructs nothing; None with a problem noted where there is none."""
    if not text.strip():
        problems.say("the manifest is empty")
        return None
    most = size_limit * NODES_A_MEGABYTE
    try:
        if problems.notation == "JSON":
            lines = problems.path.suffix.lower() == ".jsonl"
            return json_lines(text, problems, most) if lines else json_root(text, problems, most)
        root = compose(text, most)
    except TooMuchError as error:
        problems.say(f"{error}; {_RAISED}")
        return None
    except YamlError as error:
        if error.too_much:
            problems.say(f"{error}; {_RAISED}")
        else:
            problems.line(error.line, str(error))
        return None
    if root is None:
        problems.say("the manifest is empty")
    return root


def _doubles(entries: list[Entry]) -> Iterator[tuple[yaml.Node, str]]:
    """Names and triggers that two teachers share; names differ by more than case, since they become files."""
    for key in ("name", "trigger"):
        first: dict[str, yaml.Node] = {}
        for entry in entries:
            node, word = entry.nodes.get(key), entry.words.get(key)
            if node is None or word is None:
                continue
            other = first.setdefault(word.casefold(), node)
            if other is not node:
                yield node, f"the {key} {quoted(word)} stands in line {other.start_mark.line + 1} already"

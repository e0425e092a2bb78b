"""The manifest: a list of teachers in YAML, JSON or JSONL, read with the line of every word for the mistakes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from attrs import frozen

from clora.api import EffectCard
from clora_teachers.entry import Entry, read_entry
from clora_teachers.json_nodes import json_lines, json_root
from clora_teachers.paths import Folders
from clora_teachers.problems import Problems

MAX_BYTES = 4 << 20


@frozen
class Manifest:
    """What a manifest says: the cards of the entries without mistakes, every entry's (name, LoRA file), all mistakes.

    A mistake is one sentence with file:line; an entry that has one still names its file.
    """

    cards: tuple[EffectCard, ...] = ()
    files: tuple[tuple[str, Path], ...] = ()
    problems: tuple[str, ...] = ()


def read_manifest(path: Path, lora_folder: Path | None = None) -> Manifest:
    """Read it whole; LoRA files lie in its folder or, where it is given, in `lora_folder`. Raises nothing."""
    problems = Problems(path)
    text = _text(path, problems)
    root = None if text is None else _nodes(text, problems)
    if root is None:
        return Manifest(problems=problems.sentences())
    if not isinstance(root, yaml.SequenceNode) or (not root.value and not problems.found):
        begins = '[{"name": ...' if problems.notation == "JSON" else "- name:"
        problems.at(root, f"a bank is a list of teachers, each a mapping that begins `{begins}`")
        return Manifest(problems=problems.sentences())
    folders = Folders(path.parent.resolve(), lora_folder.resolve() if lora_folder is not None else None)
    entries = [entry for node in root.value if (entry := read_entry(node, folders, problems)) is not None]
    for sentence in _doubles(entries):
        problems.at(*sentence)
    cards = tuple(entry.card for entry in entries if entry.card is not None)
    files = tuple((entry.words.get("name", entry.lora.stem), entry.lora) for entry in entries if entry.lora)
    return Manifest(cards, files, problems.sentences())


def _text(path: Path, problems: Problems) -> str | None:
    try:
        if not path.is_file():
            problems.say("there is no such manifest")
        elif path.stat().st_size > MAX_BYTES:
            problems.say(f"the manifest is larger than {MAX_BYTES >> 20} MB")
        else:
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problems.say("the manifest is not text in UTF-8")
    except OSError as error:
        problems.say(f"cannot be read: {error.strerror or error}")
    return None


def _nodes(text: str, problems: Problems) -> yaml.Node | None:
    """The manifest's tree of nodes, which constructs nothing; None with a problem noted where there is none."""
    if not text.strip():
        problems.say("the manifest is empty")
        return None
    if problems.notation == "JSON":
        lines = problems.path.suffix.lower() == ".jsonl"
        return json_lines(text, problems) if lines else json_root(text, problems)
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        problems.line(line, f"not YAML: {error.problem or error.context}")
        return None
    except (yaml.YAMLError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        problems.say("nested too deeply" if deep else f"not YAML: {error}".replace("\n", " "))
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
                yield node, f"the {key} {word!r} stands in line {other.start_mark.line + 1} already"

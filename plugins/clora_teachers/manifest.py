"""The manifest: a YAML list of teachers, read with the line of every word so that mistakes are shown where they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from clora.api import EffectCard
from clora_teachers.entry import Entry, Problems, read_entry

MAX_BYTES = 4 << 20


def read_manifest(path: Path) -> tuple[tuple[EffectCard, ...], tuple[str, ...]]:
    """The cards of the entries without mistakes, and all mistakes, one sentence each with file:line."""
    problems = Problems(path)
    root = _compose(path, problems)
    if root is None:
        return (), problems.sentences()
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        problems.at(root, "a bank is a list of teachers, each a mapping that begins `- name:`")
        return (), problems.sentences()
    folder = path.parent.resolve()
    entries = [entry for node in root.value if (entry := read_entry(node, folder, problems)) is not None]
    for sentence in _doubles(entries):
        problems.at(*sentence)
    return tuple(entry.card for entry in entries if entry.card is not None), problems.sentences()


def _compose(path: Path, problems: Problems) -> yaml.Node | None:
    """The manifest's tree of nodes, which constructs nothing; None with a problem noted where there is none."""
    try:
        if not path.is_file():
            problems.say("there is no such manifest")
            return None
        if path.stat().st_size > MAX_BYTES:
            problems.say(f"the manifest is larger than {MAX_BYTES >> 20} MB")
            return None
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problems.say("the manifest is not text in UTF-8")
        return None
    except OSError as error:
        problems.say(f"cannot be read: {error.strerror or error}")
        return None
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        problems.found.append((line, f"not YAML: {error.problem or error.context}"))
        return None
    except (yaml.YAMLError, RecursionError) as error:
        problems.say(
            "nested too deeply" if isinstance(error, RecursionError) else f"not YAML: {error}".replace("\n", " ")
        )
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

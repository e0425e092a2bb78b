"""The mistakes found in a manifest, each with its line, and the words for what stands there instead."""

from __future__ import annotations

from pathlib import Path

import yaml
from attrs import field, frozen


@frozen
class Problems:
    """The mistakes found in a file, each with its line (0 for the whole file)."""

    path: Path
    found: list[tuple[int, str]] = field(factory=list)

    @property
    def notation(self) -> str:
        """What the file is read as."""
        return "JSON" if self.path.suffix.lower() in (".json", ".jsonl") else "YAML"

    def at(self, node: yaml.Node, sentence: str) -> None:
        """Note a mistake where a node begins."""
        self.line(node.start_mark.line + 1, sentence)

    def line(self, line: int, sentence: str) -> None:
        """Note a mistake in a line, counted from 1."""
        self.found.append((line, sentence))

    def say(self, sentence: str) -> None:
        """Note a mistake of the whole file."""
        self.found.append((0, sentence))

    def sentences(self) -> tuple[str, ...]:
        """All of them in the file's order, as file:line: sentence."""
        ordered = sorted(self.found, key=lambda mistake: mistake[0])
        return tuple(f"{self.path}:{line}: {text}" if line else f"{self.path}: {text}" for line, text in ordered)


def kind(node: yaml.Node) -> str:
    """What a node is, in words."""
    names = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing", "timestamp": "a date"}
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return names.get(node.tag.rsplit(":", 1)[-1], f"a {node.tag}")


def word(what: str, node: yaml.Node, problems: Problems) -> str | None:
    """A text that is not blank, or None with the mistake noted; `what` names it."""
    if not isinstance(node, yaml.ScalarNode):
        problems.at(node, f"{what} must be text, not {kind(node)}")
    elif node.tag != "tag:yaml.org,2002:str":
        reads = f"{problems.notation} reads {node.value!r} as {kind(node)}"
        problems.at(node, f"{what} must be text, but {reads}; put it in quotes")
    elif not node.value.strip():
        problems.at(node, f"{what} is empty")
    elif any("\ud800" <= letter <= "\udfff" for letter in node.value):  # no tokenizer and no file name takes it
        problems.at(node, f"{what} holds half a character (a lone surrogate)")
    else:
        return node.value.strip()
    return None

"""The mistakes found in a manifest, each with its line, and the words for what stands there instead."""

from __future__ import annotations

from pathlib import Path

import yaml
from attrs import define, field

from clora.api import MAX_NAME, MAX_PROMPT, escaped, quoted, shown, text_problem

#: how many mistakes are told; a manifest with more is read no further
SHOWN = 50
#: texts that are paths, which are checked as such: file names have limits of their own
PATHS = ("lora", "a picture's path")


@define
class Problems:
    """The first mistakes found in a file, each with its line (0 for the whole file), and how many more there are."""

    path: Path
    found: list[tuple[int, str]] = field(factory=list)
    count: int = 0

    @property
    def notation(self) -> str:
        """What the file is read as."""
        return "JSON" if self.path.suffix.lower() in (".json", ".jsonl") else "YAML"

    @property
    def full(self) -> bool:
        """True where no more mistakes are told, so that looking for more is of no use."""
        return self.count > SHOWN

    def at(self, node: yaml.Node, sentence: str) -> None:
        """Note a mistake where a node begins."""
        self.line(node.start_mark.line + 1, sentence)

    def line(self, line: int, sentence: str) -> None:
        """Note a mistake in a line, counted from 1."""
        self.count += 1
        if self.count <= SHOWN:
            self.found.append((line, sentence))

    def say(self, sentence: str) -> None:
        """Note a mistake of the whole file."""
        self.line(0, sentence)

    def sentences(self) -> tuple[str, ...]:
        """All of them in the file's order, as file:line: sentence."""
        ordered = sorted(self.found, key=lambda mistake: mistake[0])
        path = shown(self.path)
        told = [f"{path}:{line}: {text}" if line else f"{path}: {text}" for line, text in ordered]
        more = [f"{path}: has more mistakes than these {SHOWN}; the rest was not read"] if self.full else []
        return (*told, *more)


def kind(node: yaml.Node) -> str:
    """What a node is, in words."""
    names = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing", "timestamp": "a date"}
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return names.get(node.tag.rsplit(":", 1)[-1], f"a {escaped(node.tag[:80])}")


def word(what: str, node: yaml.Node, problems: Problems) -> str | None:
    """A text that is not blank, or None with the mistake noted; `what`, a key, names it."""
    if not isinstance(node, yaml.ScalarNode):
        problems.at(node, f"{what} must be text, not {kind(node)}")
    elif node.tag != "tag:yaml.org,2002:str":
        reads = f"{problems.notation} reads {quoted(node.value)} as {kind(node)}"
        problems.at(node, f"{what} must be text, but {reads}; put it in quotes")
    elif not node.value.strip():
        problems.at(node, f"{what} is empty")
    elif what not in PATHS and (wrong := text_problem(node.value.strip(), _most(what))) is not None:
        problems.at(node, f"{what} {wrong}")
    else:
        return node.value.strip()
    return None


def _most(what: str) -> int:
    return MAX_NAME if what in ("name", "trigger") else MAX_PROMPT

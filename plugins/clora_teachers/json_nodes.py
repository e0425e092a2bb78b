"""JSON as the same nodes that YAML gives, so that every word of it has its line too.

YAML's own parser takes most JSON, but not tabs, nor letters outside the basic plane written as \\u pairs.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NoReturn

import yaml

from clora_teachers.problems import Problems

_SPACE = re.compile(r"[ \t\r\n]*")
_BARE = re.compile(r"[^\s,:\]}]+")
_DECODER = json.JSONDecoder()
_TAG = "tag:yaml.org,2002:"


def json_root(text: str, problems: Problems) -> yaml.Node | None:
    """A JSON text's node, or None with the mistake noted."""
    return _parsed(text, 1, problems)


def json_lines(text: str, problems: Problems) -> yaml.Node:
    """The objects of a JSONL text as a list; lines that are no JSON are noted."""
    mark = yaml.Mark("", 0, 0, 0, None, None)  # pyright: ignore[reportArgumentType] - a mark may have no text to quote
    nodes = [
        node
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and (node := _parsed(line, number, problems)) is not None
    ]
    return yaml.SequenceNode(f"{_TAG}seq", nodes, mark, mark)


def _parsed(text: str, first_line: int, problems: Problems) -> yaml.Node | None:
    try:
        json.loads(text, parse_constant=_no_constant)
        return _Reader(text, first_line).node(0)[0]
    except json.JSONDecodeError as error:
        more = "; one object a line is JSONL, whose file ends in .jsonl" if error.msg == "Extra data" else ""
        problems.line(first_line + error.lineno - 1, f"not JSON: {error.msg} (column {error.colno}){more}")
    except RecursionError:
        problems.say("nested too deeply")
    except ValueError as error:  # NaN, or an integer of thousands of digits
        problems.line(first_line, f"not JSON that can be read: {error}")
    return None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


class _Reader:
    """Reads a text that is known to be JSON once more, with the places."""

    def __init__(self, text: str, first_line: int) -> None:
        self.text = text
        self.first_line = first_line
        self.breaks = [match.start() for match in re.finditer("\n", text)]

    def node(self, at: int) -> tuple[yaml.Node, int]:
        """The value that begins at or after a place, and the place behind it."""
        at = self._skip(at)
        opening, mark = self.text[at], self._mark(at)
        if opening == "[":
            items, end = self._members(at + 1, "]")
            return yaml.SequenceNode(f"{_TAG}seq", items, mark, mark), end
        if opening == "{":
            items, end = self._members(at + 1, "}")
            return yaml.MappingNode(f"{_TAG}map", list(_paired(items)), mark, mark), end
        if opening == '"':
            value, end = _DECODER.raw_decode(self.text, at)
            return yaml.ScalarNode(f"{_TAG}str", value, mark, mark), end
        word = _BARE.match(self.text, at)
        assert word is not None
        return yaml.ScalarNode(f"{_TAG}{_tag(word[0])}", word[0], mark, mark), word.end()

    def _members(self, at: int, closing: str) -> tuple[list[yaml.Node], int]:
        """The values up to a closing bracket, keys among them; the signs between them are known to be right."""
        found: list[yaml.Node] = []
        while self.text[at := self._skip(at)] != closing:
            if self.text[at] in ",:":
                at += 1
            else:
                node, at = self.node(at)
                found.append(node)
        return found, at + 1

    def _skip(self, at: int) -> int:
        space = _SPACE.match(self.text, at)
        return at if space is None else space.end()

    def _mark(self, at: int) -> yaml.Mark:
        line = self.first_line - 1 + bisect_right(self.breaks, at)
        return yaml.Mark("", at, line, 0, None, None)  # pyright: ignore[reportArgumentType]


def _paired(items: list[yaml.Node]) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    return zip(items[::2], items[1::2], strict=True)


def _tag(word: str) -> str:
    if word in ("true", "false"):
        return "bool"
    return "null" if word == "null" else "float" if re.search("[.eE]", word) else "int"

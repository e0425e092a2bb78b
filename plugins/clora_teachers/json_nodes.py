"""JSON as the same nodes that YAML gives, so that every word of it has its line too.

YAML's own parser takes most JSON, but not tabs, nor letters outside the basic plane written as \\u pairs.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

import yaml

from clora.api import MAX_DEPTH, json_size, reason
from clora_teachers.problems import Problems

#: digits of a number: more mean nothing in a bank
MAX_DIGITS = 40
#: the next sign that is more than space or stands between two values
_NEXT = re.compile(r"[^ \t\r\n,:]")
_BARE = re.compile(r"[^\s,:\]}]+")
_DECODER = json.JSONDecoder()
_TAG = "tag:yaml.org,2002:"


class TooMuchError(ValueError):
    """More values and keys than a bank may hold."""


def json_root(text: str, problems: Problems, most: int = 1_000_000) -> yaml.Node | None:
    """A JSON text's node, or None with the mistake noted. Raises TooMuchError above `most` values and keys."""
    _counted(text, 0, most)
    return _parsed(text, 1, problems)


def json_lines(text: str, problems: Problems, most: int = 1_000_000) -> yaml.Node:
    """The objects of a JSONL text as a list; lines that are no JSON are noted. Raises TooMuchError as `json_root`."""
    mark = yaml.Mark("", 0, 0, 0, None, None)  # pyright: ignore[reportArgumentType] - a mark may have no text to quote
    nodes: list[yaml.Node] = []
    total = 0
    for number, line in enumerate(text.split("\n"), 1):
        if problems.full:
            break
        if line.strip():
            total = _counted(line, total, most)
            node = _parsed(line, number, problems)
            nodes += [] if node is None else [node]
    return yaml.SequenceNode(f"{_TAG}seq", nodes, mark, mark)


def _counted(text: str, before: int, most: int) -> int:
    total = before + json_size(text)[1]
    if total > most:
        raise TooMuchError(f"has more than {most:,} values and keys")
    return total


def _parsed(text: str, first_line: int, problems: Problems) -> yaml.Node | None:
    if json_size(text)[0] > MAX_DEPTH:
        problems.line(0 if first_line == 1 else first_line, f"nested too deeply: more than {MAX_DEPTH} levels")
        return None
    try:
        json.loads(text, parse_constant=_no_constant, parse_int=_digits, parse_float=_digits)
        return _read(text, first_line)
    except json.JSONDecodeError as error:
        more = "; one object a line is JSONL, whose file ends in .jsonl" if error.msg == "Extra data" else ""
        problems.line(first_line + error.lineno - 1, f"not JSON: {error.msg} (column {error.colno}){more}")
    except ValueError as error:  # NaN, or a number of thousands of digits
        problems.line(first_line, f"not JSON that can be read: {reason(error)}")
    return None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _digits(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return digits


def _read(text: str, first_line: int) -> yaml.Node:
    """The nodes of a text that is known to be JSON, in one pass; what is open lies in a list, not on Python's stack."""
    line, counted, at = first_line - 1, 0, 0
    done: list[yaml.Node] = []
    open_: list[tuple[yaml.CollectionNode, list[yaml.Node]]] = []
    while (found := _NEXT.search(text, at)) is not None:
        at, sign = found.start(), found[0]
        line, counted = line + text.count("\n", counted, at), at
        mark = yaml.Mark("", at, line, 0, None, None)  # pyright: ignore[reportArgumentType]
        if sign in "[{":
            kind, tag = (yaml.SequenceNode, "seq") if sign == "[" else (yaml.MappingNode, "map")
            open_.append((kind(f"{_TAG}{tag}", [], mark, mark), done))
            done, at = [], at + 1
        elif sign in "]}":
            node, outer = open_.pop()
            node.value = done if sign == "]" else list(zip(done[::2], done[1::2], strict=True))
            outer.append(node)
            done, at = outer, at + 1
        elif sign == '"':
            value, at = _DECODER.raw_decode(text, at)
            done.append(yaml.ScalarNode(f"{_TAG}str", value, mark, mark))
        else:
            bare = _BARE.match(text, at)
            assert bare is not None
            done.append(yaml.ScalarNode(f"{_TAG}{_tag(bare[0])}", bare[0], mark, mark))
            at = bare.end()
    return done[0]


def _tag(word: str) -> str:
    if word in ("true", "false"):
        return "bool"
    return "null" if word == "null" else "float" if re.search("[.eE]", word) else "int"

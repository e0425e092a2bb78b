"""Types and bounds in the words of a message."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from clora.config.scalars import FOREIGN_BOOLS, as_int, as_text, is_beyond, natural
from clora.config.tree import Keypath, Node, Text
from clora.errors import QUOTED, escaped, quoted, reason
from clora.toolkit.diffusers_folder import ModelPlace

_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    ModelPlace: "a folder or a Hub id",
    type(None): "null",
}
#: keys of a path and characters of a component's own sentence that a message repeats
MOST_KEYS, SENTENCE = 40, 400
_PLURALS = {int: "integers", float: "numbers", str: "texts", Path: "paths"}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
#: how attrs words the failure of its number validators
_ATTRS_BOUND = re.compile(r"'(?P<name>\w+)' must be (?P<sign>>=|<=|>|<) (?P<bound>.+): (?P<value>.*)", re.DOTALL)


def described(expected: Any) -> str:
    """What is expected, in words: `an integer`, `a list of 2 numbers`, `one of independent, shared`."""
    origin, members = get_origin(expected), get_args(expected)
    if expected in _NAMES:
        return _NAMES[expected]
    if origin in (Union, types.UnionType):
        return " or ".join(described(member) for member in members)
    if origin is Literal:
        options = ", ".join(str(option) for option in members)
        return f"one of {options}" if len(members) > 1 else options
    if origin is tuple and members[1:] != (...,):
        return f"a list of {len(members)}" + (f" {_plural(members[0])}" if len(set(members)) == 1 else "")
    if origin in (tuple, list, Sequence):
        return f"a list of {_plural(members[0])}"
    if origin in (dict, Mapping) or (isinstance(expected, type) and attrs.has(expected)):
        return "a mapping"
    return expected.__name__ if isinstance(expected, type) else str(expected)


def _plural(member: Any) -> str:
    if get_origin(member) is Literal:
        return ", ".join(str(option) for option in get_args(member))
    return _PLURALS.get(member, "mappings" if isinstance(member, type) and attrs.has(member) else "values")


def advice(expected: Any, node: Node) -> str:
    """How to write what was probably meant, where the notation is a known trap."""
    if not isinstance(node, Text) or node.is_null:
        return ""
    if expected is bool and node.text.lower() in FOREIGN_BOOLS:
        return "; only true and false, unquoted and in small letters, are booleans here"
    if expected in (int, float) and not node.plain and natural(Text(node.text, True, node.mark)) != node.text:
        return "; leave the quotes out"
    if expected is int and as_int(node) is None and not is_beyond(node) and node.plain and _is_digits(node):
        return "; leave the leading zeros out"
    if expected in (str, Path) and node.plain and as_text(node) is None and len(node.text) <= QUOTED:
        return f'; as text it is written "{node.text}"'
    return ""


def _is_digits(node: Text) -> bool:
    return node.text.lstrip("+-").isdigit()


def dotted(path: Keypath) -> str:
    """The path as one word of a message: train.steps; of a long one the two ends."""
    text = escaped(".".join(path[:MOST_KEYS]))
    return (f"{text[:QUOTED]}...{text[-QUOTED:]}" if len(text) > 2 * QUOTED + 3 else text) or "the recipe"


def bound(error: Exception, name: str, path: str) -> str:
    """A validator's failure in words: `train.steps must be at least 1, found 0`."""
    message = str(error.args[0]) if error.args else type(error).__name__
    match = _ATTRS_BOUND.fullmatch(message) if len(message) <= SENTENCE else None
    if match is not None:
        value = match["value"] if len(match["value"]) <= QUOTED else quoted(match["value"])
        return f"{path} must be {_BOUNDS[match['sign']]} {match['bound']}, found {escaped(value)}"
    if name and message.startswith(f"'{name}' "):
        return f"{path} {reason(message[len(name) + 3 :], SENTENCE)}"
    return f"{path}: {reason(message, SENTENCE)}"

"""What a scalar of a recipe means: numbers, true and false, text, and nothing that a person did not mean.

YAML 1.1 reads `1e-4` as text, `no` as false, `010` as 8 and `1:30` as 90. Here the spelling alone decides, the same way
everywhere: a decimal number is a number, `true` and `false` are booleans, anything else or anything quoted is text.
"""

from __future__ import annotations

import math
import re

from clora.config.tree import Items, Keys, Node, Text
from clora.errors import escaped, quoted

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9_]*)(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?")
_BOOLS = {"true": True, "false": False}
#: what YAML 1.1 and other readers take for a boolean or a float, and this one does not
FOREIGN_BOOLS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false"})


#: digits of an integer and characters of any number: beyond them nothing is meant, and reading takes its time
MAX_DIGITS, MAX_NUMBER = 20, 64


def as_int(node: Node) -> int | None:
    """The integer that is written here, or None; it has at most MAX_DIGITS digits."""
    if isinstance(node, Text) and node.plain and len(node.text) <= MAX_NUMBER and _INT.fullmatch(node.text):
        digits = node.text.replace("_", "")
        return int(digits) if len(digits.lstrip("+-")) <= MAX_DIGITS else None
    return None


def as_float(node: Node) -> float | None:
    """The finite number that is written here, or None; an integer is a number too."""
    if isinstance(node, Text) and _is_number(node) and not _digits_beyond(node):
        number = float(node.text.replace("_", ""))
        return number if math.isfinite(number) else None
    return None


def as_bool(node: Node) -> bool | None:
    """The boolean that is written here, or None; only `true` and `false` are booleans."""
    return _BOOLS.get(node.text) if isinstance(node, Text) and node.plain else None


def as_text(node: Node) -> str | None:
    """The text that is written here, or None if it would be read as a number, a boolean or null."""
    if not isinstance(node, Text):
        return None
    if node.is_null or as_bool(node) is not None or _is_number(node):
        return None
    return node.text


def _is_number(node: Text) -> bool:
    """True for a number of any size."""
    return node.plain and _FLOAT.fullmatch(node.text) is not None


def _digits_beyond(node: Text) -> bool:
    """True for more digits than MAX_DIGITS in an integer, or a number of more than MAX_NUMBER characters."""
    return len(node.text) > MAX_NUMBER or (_INT.fullmatch(node.text) is not None and as_int(node) is None)


def is_beyond(node: Node) -> bool:
    """True for a number that is written as one and that nothing here can hold."""
    return isinstance(node, Text) and _is_number(node) and as_float(node) is None


def natural(node: Text) -> str | int | float | bool | None:
    """What a scalar means where no type is expected; a number beyond all bounds is its text (see `is_beyond`)."""
    if node.is_null:
        return None
    for read in (as_bool, as_int, as_float):
        value = read(node)
        if value is not None:
            return value
    return node.text


def found(node: Node) -> str:
    """A value in the words of a message: `found 3.9`."""
    if isinstance(node, Items):
        return "found a list"
    if isinstance(node, Keys):
        return "found a mapping"
    if node.is_null:
        return "found nothing" if not node.text else "found null"
    if is_beyond(node) and _digits_beyond(node):
        return f"found a number of {len(node.text):,} digits, of which at most {MAX_DIGITS} are read"
    if not node.plain and natural(Text(node.text, True, node.mark)) != node.text:
        return f'found the text "{escaped(node.text)}"'
    return f"found {quoted(node.text)}" if natural(node) == node.text else f"found {node.text}"

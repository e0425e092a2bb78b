"""A recipe with every value in it, written or default: for people to read, for a run to keep, for a digest."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from clora.config.fields import keys_of
from clora.config.scalars import FOREIGN_BOOLS, natural
from clora.config.tree import Keypath, Keys, Mark, Node, Text, is_null
from clora.errors import escaped

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_PLAIN_WORD = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*( [A-Za-z0-9_./-]+)*")

#: what a run is called and how the machine carries it out: the outcome is the same
_NO_MATTER = frozenset({("name",), ("title",), ("prepare", "previews"), ("teacher", "slots"), ("train", "shard_base")})

#: sections that have no say in the LoRA and its evaluation: captions count by what they say, exporters add files,
#: observers look on, reporters tell of what is there
_BESIDE = frozenset({"captioner", "exporters", "observers", "reporters"})

_NOWHERE = Mark("", Path())


@frozen
class Leaf:
    """A value and the place that gave it; None where it is the default."""

    value: Plain
    origin: Mark | None
    #: a plugin's default path, such as a file in its package: the same thing wherever it is installed
    shipped: bool = False

    @property
    def stays_default(self) -> bool:
        """True where writing the value down would tie the recipe to this machine."""
        return self.shipped and self.origin is None


@frozen
class Branch:
    """A section."""

    entries: Mapping[str, Leaf | Branch]

    def leaves(self, path: Keypath = ()) -> Iterator[tuple[Keypath, Leaf]]:
        """Every value with its path, in order."""
        for key, entry in self.entries.items():
            if isinstance(entry, Leaf):
                yield (*path, key), entry
            else:
                yield from entry.leaves((*path, key))


class _UnwritableError(Exception):
    """A default that YAML has no notation for."""


def resolve(value: Any, node: Node | None) -> Leaf | Branch:
    """A typed value as a tree with origins; `node` is what was written of it."""
    if node is not None and is_null(node) and value is not None:
        node = None  # null asked for the default
    if attrs.has(type(value)):
        return _section(value, node if isinstance(node, Keys) else None)
    if isinstance(value, Mapping):
        keys = node if isinstance(node, Keys) else None
        return Branch({name: resolve(member, keys.get(name) if keys else None) for name, member in value.items()})
    return Leaf(_plain(value), None if node is None else node.mark)


def _section(value: Any, keys: Keys | None) -> Branch:
    use = keys.get("use") if keys is not None else None
    entries: dict[str, Leaf | Branch] = {"use": Leaf(use.text, use.mark)} if isinstance(use, Text) else {}
    held = attrs.asdict(value, recurse=False)
    for key in keys_of(type(value)):
        current = held[key.attribute.name]
        given = keys.get(key.name) if keys is not None else None
        try:
            entry = resolve(current, given)
        except _UnwritableError:
            continue
        if isinstance(current, Path) and current == key.attribute.default and isinstance(entry, Leaf):
            entry = attrs.evolve(entry, shipped=True)
        entries[key.name] = entry
    return Branch(entries)


def _plain(value: Any) -> Plain:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if attrs.has(type(value)):
        held = attrs.asdict(value, recurse=False)
        return _plain({key.name: held[key.attribute.name] for key in keys_of(type(value))})
    raise _UnwritableError


def shapes_the_run(path: Keypath) -> bool:
    """Whether the value at a path of a recipe has a say in the LoRA and its evaluation."""
    return path[0] not in _BESIDE


def digest(tree: Branch, code: Mapping[str, str], counts: Callable[[Keypath], bool] = shapes_the_run) -> str:
    """A hash of all that a run, or a part of it, depends on: every value that `counts`, less what is outward.

    `code` says by place what a component's numbers depend on beside its keys.
    """
    content: dict[str, Any] = {
        json.dumps(path): "shipped" if leaf.shipped else leaf.value
        for path, leaf in tree.leaves()
        if path not in _NO_MATTER and counts(path)
    }
    content["code"] = {place: each for place, each in code.items() if counts(tuple(place.split(".")))}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def values_in(entry: Branch | Leaf) -> int:
    """How many values the entry is when it is read again."""
    if isinstance(entry, Branch):
        return 1 + sum(values_in(member) for member in entry.entries.values())
    return _count(entry.value)


def _count(value: Plain) -> int:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(_count(member) for member in members)


def as_yaml(tree: Branch) -> str:
    """The tree as YAML that loads again to the same digest."""
    return "".join(f"{text}\n" for text, leaf in _lines(tree, "") if leaf is None or not leaf.stays_default)


def as_annotated_yaml(tree: Branch, comment: Callable[[Leaf], str]) -> str:
    """The same YAML with an aligned comment on every value; plugins' default paths are comments as a whole."""
    lines = [(f"# {text}" if leaf and leaf.stays_default else text, leaf) for text, leaf in _lines(tree, "")]
    width = min(max((len(text) for text, leaf in lines if leaf is not None), default=0), 60)
    return "".join(f"{text}\n" if leaf is None else f"{text:<{width}}  # {comment(leaf)}\n" for text, leaf in lines)


def _lines(branch: Branch, indent: str) -> Iterator[tuple[str, Leaf | None]]:
    for key, entry in branch.entries.items():
        if isinstance(entry, Leaf):
            yield f"{indent}{_scalar(key)}: {_flow(entry.value)}", entry
        elif not entry.entries:
            yield f"{indent}{_scalar(key)}: {{}}", None
        else:
            yield f"{indent}{_scalar(key)}:", None
            yield from _lines(entry, indent + "  ")


def _flow(value: Plain) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    return _scalar(value)


def _scalar(value: bool | int | float | str | None) -> str:
    if isinstance(value, float):
        text = repr(value)
        # Other YAML readers take 1e-05 for text.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if not isinstance(value, str):
        return json.dumps(value)
    is_word = _PLAIN_WORD.fullmatch(value) is not None and value.lower() not in FOREIGN_BOOLS
    if is_word and isinstance(natural(Text(value, True, _NOWHERE)), str):
        return value
    # The escapes are YAML's and Python's alike; what steers a terminal is never written as it is.
    return '"' + escaped(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'

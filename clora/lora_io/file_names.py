"""All names of a file understood together: by clora's own layouts, and where those fail by the registered ones.

A registered layout cannot change how a file is read that clora reads by itself, and sees no name that it has read. It
is asked for names that mean no linear here, and for an alpha or a magnitude of a linear that has no factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from clora.lora_io.grammar import unsupported
from clora.lora_io.header import named
from clora.lora_io.keys import Key, Names
from clora.lora_io.layouts import installed


@frozen
class FileNames:
    """What a file's names mean; `problems` tell names that two registered layouts understand differently."""

    keys: Mapping[str, Key]
    unmatched: tuple[str, ...]  # names of no linear here
    unsupported: Mapping[str, list[str]]  # a kind of adapter that cannot be read -> its names
    problems: tuple[str, ...] = field(factory=tuple)


def understood(names: Names, tensors: Iterable[str]) -> FileNames:
    """What the names of a file's tensors mean. Raises ComponentError for a registered layout that cannot be asked."""
    keys: dict[str, Key | None] = {}
    foreign: dict[str, list[str]] = {}
    for name in tensors:
        kind = unsupported(name)
        if kind is not None:
            foreign.setdefault(kind, []).append(name)
        else:
            keys[name] = names.understand(name)
    more, problems = _by_registered(names, keys) if installed() else ({}, [])
    keys |= more
    found = {name: key for name, key in keys.items() if key is not None}
    return FileNames(found, tuple(name for name in keys if name not in found), foreign, tuple(problems))


def _by_registered(names: Names, keys: Mapping[str, Key | None]) -> tuple[dict[str, Key], list[str]]:
    """What registered layouts say of the names that are not read yet, and the names of which two say different things.

    Every layout is asked, whoever answers first: the order of installation decides nothing.
    """
    begun = {key.module for key in keys.values() if key is not None and key.kind is not None}
    left = [name for name, key in keys.items() if key is None or (key.kind is None and key.module not in begun)]
    found: dict[str, Key] = {}
    problems: list[str] = []
    for layout in installed() if left else ():
        for name, said in layout.understand(left).items():
            key = names.understand_as(layout, said)
            other = found.get(name)
            if key is None:
                continue
            if other is None or (other.module, other.part) == (key.module, key.part):
                found.setdefault(name, key)
            else:
                two = f"{other.part} of {other.module} to {other.layout} and {key.part} of {key.module} to {key.layout}"
                problems.append(f"{named(name)} is {two}: block one of the two plugins")
    return found, problems

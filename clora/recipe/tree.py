"""A recipe's YAML as a tree that remembers where every value stands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

#: the spellings of "nothing" in YAML
NULLS = frozenset({"", "~", "null", "Null", "NULL"})

#: the keys that lead to a value
Keypath = tuple[str, ...]


@frozen
class Mark:
    """Where a value stands: a file with line and column (from 1), or the `--set` that gave it."""

    source: str
    folder: Path  # what a relative path at this place is relative to
    file: Path | None = None
    line: int = 0
    column: int = 0

    @classmethod
    def of_file(cls, file: Path, line: int = 0, column: int = 0) -> Mark:
        """A place in a file, shown relative to the working directory where the file is below it."""
        file = Path(os.path.abspath(file))
        here = Path.cwd()
        shown = file.relative_to(here) if file.is_relative_to(here) else file
        return cls(str(shown), file.parent, file, line, column)

    @classmethod
    def of_set(cls, key: str) -> Mark:
        """The `--set` of the command line that names this key."""
        return cls(f"--set {key}", Path.cwd())

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def shown_from(self, folder: Path) -> str:
        """The place without its column, its file relative to `folder`."""
        if self.file is None:
            return self.source
        return f"{Path(os.path.relpath(self.file, folder)).as_posix()}:{self.line}"


@frozen
class Text:
    """A scalar as it was written; what it means depends on the type that is expected."""

    text: str
    plain: bool  # not quoted
    mark: Mark

    @property
    def is_null(self) -> bool:
        """True for an unquoted null."""
        return self.plain and self.text in NULLS


@frozen
class Items:
    """A list."""

    values: tuple[Node, ...]
    mark: Mark


@frozen
class Entry:
    """A key's place and its value."""

    key: Mark
    value: Node


@frozen
class Keys:
    """A mapping; its mark is that of the key it stands under."""

    entries: Mapping[str, Entry]
    mark: Mark

    def get(self, key: str) -> Node | None:
        """The value under a key, if it is there."""
        entry = self.entries.get(key)
        return None if entry is None else entry.value

    def without(self, *keys: str) -> Keys:
        """The same mapping less some keys."""
        return Keys({key: entry for key, entry in self.entries.items() if key not in keys}, self.mark)


Node = Text | Items | Keys


def is_null(node: Node) -> bool:
    """True for an unquoted null."""
    return isinstance(node, Text) and node.is_null


def mark_at(root: Keys, path: Keypath) -> Mark:
    """The place of the value at `path`, or of the innermost mapping around it that was written."""
    node: Node = root
    for key in path:
        found = node.get(key) if isinstance(node, Keys) else None
        if found is None:
            break
        node = found
    return node.mark

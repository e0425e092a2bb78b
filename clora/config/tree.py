"""A recipe's YAML as a tree that remembers where every value stands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from clora.errors import escaped, shown

#: characters that a place shows of its file's path, of a `--set`'s key, and of a path in a chain of files
SOURCE, SET_KEY, STEP = 200, 60, 60

#: the spellings of "nothing" in YAML
NULLS = frozenset({"", "~", "null", "Null", "NULL"})

#: the keys that lead to a value
Keypath = tuple[str, ...]


@frozen
class Mark:
    """Where a value stands: a file with line and column (from 1), or the `--set` that gave it."""

    source: str  # as it is shown: escaped, of a long path its end
    folder: Path  # what a relative path at this place is relative to
    file: Path | None = None
    line: int = 0
    column: int = 0
    #: the place that names the file (an `extends`, a `--with`, a `serve.plus`); a mistake is the same by any way
    named_by: Mark | None = field(default=None, eq=False)

    @classmethod
    def of_file(cls, file: Path, line: int = 0, column: int = 0, named_by: Mark | None = None) -> Mark:
        """A place in a file, shown relative to the working directory where the file is below it."""
        file = Path(os.path.abspath(file))
        here = Path.cwd()
        path = file.relative_to(here) if file.is_relative_to(here) else file
        return cls(shown(path, SOURCE), file.parent, file, line, column, named_by)

    @classmethod
    def of_set(cls, key: str) -> Mark:
        """The `--set` of the command line that names this key."""
        more = "..." if len(key) > SET_KEY else ""
        return cls(f"--set {escaped(key[:SET_KEY])}{more}", Path.cwd())

    def at(self, line: int, column: int) -> Mark:
        """Another place in the same file."""
        return evolve(self, line=line, column=column)

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def way(self) -> str:
        """The places through which the file was reached, the naming recipe first, and an arrow; of many the two ends.

        Empty where the command line names the file as the recipe.
        """
        steps: list[Mark] = []
        step = self.named_by
        while step is not None:
            steps.insert(0, step)
            step = step.named_by
        words = [str(evolve(step, source=step.source[-STEP:])) for step in steps]
        if len(words) > 3:
            words[1:-1] = [f"... ({len(words) - 2} files)"]
        return "".join(f"{word} -> " for word in words)

    def shown_from(self, folder: Path) -> str:
        """The place without its column, its file relative to `folder`."""
        if self.file is None:
            return self.source
        return f"{shown(Path(os.path.relpath(self.file, folder)).as_posix(), SOURCE)}:{self.line}"


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

"""What every component is, what it may say before a model is loaded, and what a lifecycle hook is told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from attrs import frozen


@frozen
class Component:
    """A name that recipes may `use:` and the attrs class behind it; the class's fields are its YAML keys."""

    name: str
    cls: type


@runtime_checkable
class Checked(Protocol):
    """A component that can find mistakes before any model is loaded."""

    def check(self) -> Iterable[str]:
        """Every problem as one sentence that names the file and the offending word; nothing if all is well."""
        ...


@runtime_checkable
class Warns(Protocol):
    """A component that knows of something doubtful which is no mistake: it is told, and refuses nothing."""

    def warnings(self) -> Iterable[str]:
        """Every doubt as one sentence that names the file and the offending word; asked where nothing is wrong."""
        ...


@frozen
class RunInfo:
    """What a lifecycle hook is told of a run."""

    name: str
    folder: Path
    digest: str
    steps: int

"""What every component is, and what it may say before a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

from attrs import frozen, has

from clora.errors import CloraError, quoted, reason

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@frozen
class Component:
    """A name that recipes may `use:`, and the attrs class behind it, whose fields are its YAML keys.

    `"module:Class"` is imported when a recipe uses the component; the class itself is here already.
    """

    name: str  # what recipes write after `use:`: letters, digits, - _ and .
    cls: type | str  # an attrs class, or where it lies: "module:Class"

    def problem(self) -> str | None:
        """What is wrong with it, as far as that is known without importing anything but the module's packages."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            return f"{quoted(self.name)} is no name; letters, digits, - _ and . make one"
        if not isinstance(self.cls, str):
            return None if isinstance(self.cls, type) and has(self.cls) else self._no_attrs()
        if not _PLACE.fullmatch(self.cls):
            return f"the class of {quoted(self.name)} must be written as module:Class, not {quoted(self.cls)}"
        module = self.cls.partition(":")[0]
        try:
            there, why = find_spec(module) is not None, ""
        except (Exception, SystemExit) as error:  # of the package above, which is someone else's
            there, why = False, f" ({type(error).__name__}: {reason(error)})"
        return None if there else f"the module of {quoted(self.name)} is not there: {quoted(module)}{why}"

    def load(self) -> type:
        """The class, imported now. Raises CloraError where it cannot be, or is no attrs class."""
        if not isinstance(self.cls, str):
            return self.cls
        module, _, name = self.cls.partition(":")
        try:
            found = getattr(import_module(module), name)
        except (Exception, SystemExit) as error:  # someone else's module, which may do anything when it is imported
            raise CloraError(f"cannot import {quoted(self.cls)}: {type(error).__name__}: {reason(error)}") from error
        if not isinstance(found, type) or not has(found):
            raise CloraError(self._no_attrs())
        return found

    def _no_attrs(self) -> str:
        return f"the class of {quoted(self.name)} must be an attrs class, not {quoted(self.cls)}"


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

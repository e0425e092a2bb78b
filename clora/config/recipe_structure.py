"""The structurer of recipes: knows where components stand and asks the catalogue for their classes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from clora.config.checks import Parts
from clora.config.fields import Key
from clora.config.messages import dotted
from clora.config.names import MAX_COMPONENT_NAME
from clora.config.package_files import recipe_file
from clora.config.problems import Problem
from clora.config.scalars import as_text, found
from clora.config.schema import Recipe, Student
from clora.config.sections import component_kind, names_components
from clora.config.structure import Failed, Section, Structurer
from clora.config.tree import SOURCE, Keypath, Keys, Mark, Node, is_null
from clora.config.worlds import OF_METHODS
from clora.errors import CloraError, quoted, shown

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Provides(Protocol):
    """A registered component, as far as recipes need it."""

    @property
    def cls(self) -> type:
        """The attrs class whose fields are the component's YAML keys."""
        ...

    @property
    def owner(self) -> str:
        """What messages call it: `opd of clora-opd 0.2.0`."""
        ...

    @property
    def code(self) -> str:
        """What its numbers depend on beside its keys: `clora-opd 0.2.0` and a hash of its source."""
        ...


class Finds(Protocol):
    """The catalogue of components, as far as recipes need it."""

    def find(self, kind: str, name: str) -> Provides:
        """The component of this kind and name; raises CloraError with the nearest name where there is none."""
        ...


@frozen
class OtherRecipe:
    """The recipe that `serve.plus` names, and the place that does."""

    file: Path
    mark: Mark


class RecipeStructurer(Structurer):
    """Makes a Recipe, and keeps what could be made of one that has mistakes."""

    def __init__(self, catalogue: Finds) -> None:
        super().__init__()
        self.catalogue = catalogue
        self.components: dict[Keypath, Any] = {}
        self.owners: dict[str, str] = {}
        self.code: dict[str, str] = {}
        self.student: Student | None = None
        self.plus: OtherRecipe | None = None
        self.plus_world: Path | None = None

    def recipe(self, tree: Keys) -> Recipe | None:
        if tree.get("student") is None or is_null(tree.entries["student"].value):
            self.student = Student()
        try:
            return self.value(Recipe, tree, ())
        except Failed:
            return None

    def parts(self, tree: Keys) -> Parts:
        return Parts(tree, self.components, self.student)

    def value(self, expected: Any, node: Node, path: Keypath) -> Any:
        kind = component_kind(path)
        if kind is not None and is_null(node):
            return None
        if kind is not None:
            self.components[path] = component = self.component(kind, node, path)
            return component
        if names_components(path):
            return self.named_components(expected, node, path)
        if path == ("serve", "plus") and not is_null(node):
            self.plus = OtherRecipe(self.other_file(node, path), node.mark)
            return str(self.plus.file)
        if path == ("serve", "plus_world") and not is_null(node):
            self.plus_world = self.other_file(node, path)
            return str(self.plus_world)
        value = super().value(expected, node, path)
        if isinstance(value, Student):
            self.student = value
        return value

    def takes_null(self, key: Key) -> bool:
        # A component that is required cannot be removed: its null is a missing section.
        return super().takes_null(key) and not (key.type is Any and key.required)

    def words(self, section: Section) -> tuple[str, ...]:
        return section.words if section.path else (*section.words, *OF_METHODS)

    def missing(self, key: Key, path: Keypath) -> str:
        kind = component_kind((*path, key.name))
        if kind is None:
            return super().missing(key, path)
        more = ", or name a world that has one (`world: FILE`)" if kind in ("backbone", "dataset", "teachers") else ""
        return f"section {key.name!r} is missing; write `{key.name}: {{use: NAME}}`{more}"

    def named_components(self, expected: Any, node: Node, path: Keypath) -> Any:
        if not isinstance(node, Keys):
            self.fail(node.mark, f"{dotted(path)}: expected a mapping of name -> {{use: NAME}}, {found(node)}")
        for name, entry in node.entries.items():
            if not _NAME.fullmatch(name):
                message = f"{quoted(name)} in {dotted(path)} is no name; letters, digits, - and _ make one"
                self.problems.append(Problem(entry.key, message))
            elif len(name) > MAX_COMPONENT_NAME:
                message = f"{quoted(name)} in {dotted(path)} is longer than the {MAX_COMPONENT_NAME} letters of a name"
                self.problems.append(Problem(entry.key, message))
        return self.mapping(Any, node, path)

    def component(self, kind: str, node: Node, path: Keypath) -> Any:
        keys = self.keys(node, path, "a component's name or {use: NAME, ...}")
        use = keys.get("use")
        if use is None:
            self.fail(keys.mark, f"'use' is missing in {dotted(path)}: which component is it?")
        name = as_text(use)
        if name is None:
            self.fail(use.mark, f"expected a component's name under `use`, {found(use)}")
        try:
            provided = self.catalogue.find(kind, name)
            cls = provided.cls
        except CloraError as error:
            self.fail(use.mark, error)
        self.owners[dotted(path)] = f"{provided.owner}, {use.mark}"
        self.code[dotted(path)] = provided.code
        return self.made(cls, keys.without("use"), path)

    def other_file(self, node: Node, path: Keypath) -> Path:
        other: Path = super().value(Path, node, path)
        try:
            recipe_file(as_text(node) or "", node.mark.folder)
        except CloraError as error:
            self.fail(node.mark, f"{dotted(path)}: {error}")
        if not os.path.isfile(other):
            self.fail(node.mark, f"{dotted(path)}: no recipe at {shown(other, SOURCE)}")
        return other

"""The way in: a recipe's file, the files and values laid on top, and the plugins' classes -> a typed Recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
from attrs import frozen

from clora.errors import CloraError
from clora.recipe.checks import Parts, cross_checks
from clora.recipe.fields import Key
from clora.recipe.layers import layered
from clora.recipe.problems import Problem, RecipeError
from clora.recipe.resolved import Branch, as_annotated_yaml, as_yaml, digest, resolve
from clora.recipe.scalars import as_text, found
from clora.recipe.schema import Recipe, Student
from clora.recipe.sections import component_kind, names_components
from clora.recipe.structure import Failed, Structurer, dotted
from clora.recipe.tree import Keypath, Keys, Mark, Node, is_null, mark_at

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Provides(Protocol):
    """A registered component, as far as recipes need it."""

    @property
    def cls(self) -> type:
        """The attrs class whose fields are the component's YAML keys."""
        ...


class Finds(Protocol):
    """The catalogue of components, as far as recipes need it."""

    def find(self, kind: str, name: str) -> Provides:
        """The component of this kind and name; raises CloraError with the nearest name where there is none."""
        ...


@frozen
class LoadedRecipe:
    """A typed recipe with all that is known of where its values came from."""

    recipe: Recipe
    file: Path
    tree: Branch
    digest: str
    written: Keys

    @property
    def origins(self) -> Mapping[str, Mark | None]:
        """Every value's dotted path with the place that gave it; None where it is the default."""
        return {dotted(path): leaf.origin for path, leaf in self.tree.leaves()}

    def mark_of(self, path: str) -> Mark:
        """The place of the value at a dotted path, or of the innermost section around it that was written."""
        return mark_at(self.written, tuple(path.split(".")) if path else ())

    def resolved_yaml(self) -> str:
        """The recipe with every value in it; loads again to the same digest."""
        return as_yaml(self.tree)

    def show(self) -> str:
        """The same YAML with each value's origin as a comment, files relative to the recipe's own folder."""
        folder = self.file.parent
        return as_annotated_yaml(self.tree, lambda leaf: leaf.origin.shown_from(folder) if leaf.origin else "default")


def load_recipe(
    path: str | Path, with_files: Sequence[str | Path] = (), sets: Sequence[str] = (), catalogue: Finds | None = None
) -> LoadedRecipe:
    """The recipe of a file with other files and `key=value` texts laid on top; the installed plugins by default.

    Raises RecipeError with every mistake.
    """
    if catalogue is None:
        from clora.plugins import discover

        catalogue = discover()
    file = Path(path)
    layers = layered(file, [Path(other) for other in with_files], sets)
    structurer = _RecipeStructurer(catalogue)
    structurer.problems.extend(layers.problems)
    recipe = structurer.recipe(layers.tree)
    structurer.problems.extend(cross_checks(structurer.parts(layers.tree)))
    if recipe is None or structurer.problems:
        raise RecipeError(structurer.problems)
    if not recipe.name:
        recipe = attrs.evolve(recipe, name=file.stem)
    tree = resolve(recipe, layers.tree)
    assert isinstance(tree, Branch)
    return LoadedRecipe(recipe, file.absolute(), tree, digest(tree), layers.tree)


class _RecipeStructurer(Structurer):
    """The structurer of recipes: knows where components stand and asks the catalogue for their classes."""

    def __init__(self, catalogue: Finds) -> None:
        super().__init__()
        self.catalogue = catalogue
        self.components: dict[Keypath, Any] = {}
        self.student: Student | None = None

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
            return self.other_recipe(node, path)
        value = super().value(expected, node, path)
        if isinstance(value, Student):
            self.student = value
        return value

    def takes_null(self, key: Key) -> bool:
        # A component that is required cannot be removed: its null is a missing section.
        return super().takes_null(key) and not (key.type is Any and key.required)

    def missing(self, key: Key, path: Keypath) -> str:
        kind = component_kind((*path, key.name))
        if kind is None:
            return super().missing(key, path)
        return f"section {key.name!r} is missing; write `{key.name}: {{use: NAME}}`"

    def named_components(self, expected: Any, node: Node, path: Keypath) -> Any:
        if not isinstance(node, Keys):
            self.fail(node.mark, f"{dotted(path)}: expected a mapping of name -> {{use: NAME}}, {found(node)}")
        for name, entry in node.entries.items():
            if not _NAME.fullmatch(name):
                message = f"{name!r} in {dotted(path)} is no name; letters, digits, - and _ make one"
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
            cls = self.catalogue.find(kind, name).cls
        except CloraError as error:
            self.fail(use.mark, str(error))
        return self.made(cls, keys.without("use"), path)

    def other_recipe(self, node: Node, path: Keypath) -> str:
        other: Path = super().value(Path, node, path)
        if not other.is_file():
            self.fail(node.mark, f"{dotted(path)}: no recipe at {other}")
        return str(other)

"""Every field of a public type and every key of a component says what it is; every public docstring is a sentence."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import get_args

import attrs
import pytest

import clora.contracts
from clora import api
from clora.config.fields import keys_of
from clora.config.key_docs import key_docs
from clora.config.schema import Recipe
from clora.config.sections import component_kind, names_components
from clora.plugin_system.described_keys import described_keys
from clora.plugin_system.discovery import discover

TYPES = {name: value for name, value in vars(api).items() if isinstance(value, type) and attrs.has(value)}
COMPONENTS = {f"{component.kind}: {component.name}": component.cls for component in discover().components}


def unexplained(cls: type) -> list[str]:
    """The public fields without a comment of their own."""
    docs = key_docs(cls)
    return [field.name for field in attrs.fields(cls) if not field.name.startswith("_") and field.name not in docs]


def documented() -> Iterator[tuple[str, str | None]]:
    """(name, docstring) of everything public in the contracts: modules, classes, methods and functions."""
    for found in pkgutil.iter_modules(clora.contracts.__path__):
        module = importlib.import_module(f"clora.contracts.{found.name}")
        yield module.__name__, module.__doc__
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__
            if name.startswith("_") or not own or not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            yield f"{module.__name__}.{name}", value.__doc__
            for inner, method in vars(value).items() if inspect.isclass(value) else ():
                method = method.fget if isinstance(method, property) else getattr(method, "__func__", method)
                if inspect.isfunction(method) and not inner.startswith("_"):
                    yield f"{module.__name__}.{name}.{inner}", method.__doc__


@pytest.mark.parametrize("name", TYPES)
def test_every_field_of_a_public_type_says_what_it_holds(name: str) -> None:
    assert unexplained(TYPES[name]) == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_key_of_a_component_says_what_it_means(name: str) -> None:
    assert [key.name for key in described_keys(COMPONENTS[name]) if not key.meaning] == []


def test_a_field_without_its_sentence_is_found() -> None:
    @attrs.frozen
    class Mixed:
        said: int  # with a comment
        #: or with one above
        above: int
        silent: int

    assert unexplained(Mixed) == ["silent"]


def test_every_public_docstring_of_the_contracts_begins_with_a_sentence() -> None:
    found = list(documented())
    assert len(found) > 100
    wrong = [
        name
        for name, text in found
        if not text or not inspect.cleandoc(text).split("\n\n")[0].rstrip().endswith((".", "`."))
    ]
    assert wrong == []


def silent_keys(cls: type, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The keys of a recipe's sections that say nothing of themselves and hold neither components nor a section."""
    docs = key_docs(cls)
    for key in keys_of(cls):
        inner = (*path, key.name)
        below = [each for each in (key.type, *get_args(key.type)) if isinstance(each, type) and attrs.has(each)]
        components = component_kind(inner) is not None or names_components(inner)
        if not below and not components and key.attribute.name not in docs:
            yield ".".join(inner)
        for each in below:
            yield from silent_keys(each, inner)


def test_every_key_of_a_recipe_says_what_it_means() -> None:
    assert list(silent_keys(Recipe)) == []

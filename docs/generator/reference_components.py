"""The reference of components, a page for each kind, and that of a recipe's sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import attrs
from markdown_text import code, paragraphs, plain, table

from clora.config.schema import Recipe
from clora.config.sections import component_kind, names_components
from clora.contracts.hookspecs import KINDS, UNNAMED_KINDS
from clora.plugin_system.catalogue import Catalogue, Registered
from clora.plugin_system.described_keys import DescribedKey, described_keys

KEYS = ("Key", "Type", "Bounds", "Default", "Meaning")


def component_pages(catalogue: Catalogue, packages: Mapping[str, str]) -> dict[str, str]:
    """kind -> its page; `packages`: the site's page of a plugin, by the name of its package.

    Raises CloraError where a component cannot be imported.
    """
    return {kind: "\n".join(_kind(kind, catalogue, packages)) for kind in KINDS}


def _kind(kind: str, catalogue: Catalogue, packages: Mapping[str, str]) -> Iterator[str]:
    yield f"# `{kind}`"
    yield f"\nRegistered by the hook [`{KINDS[kind]}`](../hooks.md#{KINDS[kind]})."
    found = [component for component in catalogue.components if component.kind == kind]
    if not found:
        yield "\nNo installed plugin gives any."
    for component in found:
        yield from _component(component, packages.get(component.cls.__module__.partition(".")[0]))


def _component(component: Registered, page: str | None) -> Iterator[str]:
    cls = component.cls
    plugin = f"`{component.plugin}`" if page is None else f"[`{component.plugin}`](../../{page})"
    yield f"\n## {component.name}\n"
    use = component.name if component.kind in UNNAMED_KINDS else f"use: {component.name}"
    yield f"`{use}`, plugin {plugin} of {component.distribution}.\n"
    for paragraph in paragraphs(cls.__doc__):
        yield f"{paragraph}\n"
    yield from _keys(cls)


def _keys(cls: type) -> list[str]:
    keys = described_keys(cls)
    if not keys:
        return ["It has no keys."]
    rows = [(code(key.name), plain(key.type), key.bounds, _default(key), plain(key.meaning)) for key in keys]
    return table(KEYS, rows)


def _default(key: DescribedKey) -> str:
    return "**required**" if key.default is None else code(key.default)


def recipe_page() -> str:
    """Every section of a recipe with its keys."""
    lines = ["# Recipe\n", "The sections of a recipe and their keys; a section that holds components links to them.\n"]
    lines += ["## Top level", *_section(Recipe, ())]
    return "\n".join([*lines, *_sections(Recipe, ())])


def _sections(cls: type, above: tuple[str, ...]) -> Iterator[str]:
    """The sections below a class, depth first, each with its heading."""
    for name, hint in get_type_hints(cls).items():
        for section in (hint, *get_args(hint)):
            if isinstance(section, type) and attrs.has(section):
                path = (*above, name)
                yield f"\n## {'.'.join(path)}\n"
                yield from (f"{paragraph}\n" for paragraph in paragraphs(section.__doc__))
                yield from _section(section, path)
                yield from _sections(section, path)


def _section(cls: type, path: tuple[str, ...]) -> list[str]:
    rows = []
    for key in described_keys(cls):
        inner = (*path, key.name)
        kind = key.name if names_components(inner) else component_kind(inner)
        what = plain(key.type) if kind is None else _component_link(kind, names_components(inner))
        meaning = plain(key.meaning) or _section_link(cls, key.name, inner)
        rows.append((code(key.name), what, key.bounds, _default(key), meaning))
    return table(KEYS, rows)


def _component_link(kind: str, several: bool) -> str:
    link = f"[{kind}](components/{kind}.md)"
    return f"names, each with one of {link}" if several else f"one of {link}"


def _section_link(cls: type, name: str, path: tuple[str, ...]) -> str:
    """A link to the section that a key holds; "" where it holds none."""
    hint: Any = get_type_hints(cls).get(name)
    inner = any(isinstance(each, type) and attrs.has(each) for each in (hint, *get_args(hint)))
    dotted = ".".join(path)
    return f"[{dotted}](#{dotted.replace('.', '')})" if inner else ""

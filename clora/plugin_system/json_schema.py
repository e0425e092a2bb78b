"""A JSON Schema of recipes, with the keys, bounds and sentences of all installed plugins: editors complete from it.

Recipes are laid on top of one another, so no key is required and a component may be given without its `use`.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

import attrs

from clora.config.fields import Key, keys_of
from clora.config.key_docs import key_docs, sentence_of
from clora.config.schema import Recipe
from clora.config.sections import component_kind, names_components
from clora.config.tree import Keypath
from clora.contracts.bounds import Between
from clora.errors import CloraError
from clora.plugin_system.catalogue import Catalogue, Registered
from clora.toolkit.diffusers_folder import ModelPlace

Schema: TypeAlias = "dict[str, Any]"

_SCALARS: Mapping[Any, str] = {
    int: "integer",
    float: "number",
    bool: "boolean",
    str: "string",
    Path: "string",
    ModelPlace: "string",
}
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema(catalogue: Catalogue) -> Schema:
    """The schema of a recipe's file; components that cannot be imported are left out."""
    maker = _Maker(catalogue)
    schema = maker.section(Recipe, ())
    schema["properties"] = {
        "extends": {"type": "string", "description": "The recipe under this one, relative to this file."},
        "world": {"type": ["string", "null"], "description": "Model, data and budget that stand under this recipe."},
        "default_world": {"type": ["string", "null"], "description": "The world where no other is named."},
        "methods": {
            "type": ["object", "null"],
            "description": "In a world: what some methods take instead, by their files.",
            "additionalProperties": {"$ref": "#"},
        },
        **schema["properties"],
    }
    return {"$schema": DRAFT, "title": "clora recipe", **schema, "$defs": maker.definitions}


class _Maker:
    """Makes schemas; those of components are kept once under `$defs`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.definitions: dict[str, Schema] = {}

    def section(self, cls: type, path: Keypath) -> Schema:
        """A mapping with the keys of an attrs class, every one of which may be null: its default again."""
        docs = key_docs(cls)
        properties = {}
        for key in keys_of(cls):
            schema = self.place(key, (*path, key.name))
            text = docs.get(key.attribute.name)
            properties[key.name] = {**schema, "description": text} if text else schema
        return _described(_mapping(properties), sentence_of(cls))

    def place(self, key: Key, path: Keypath) -> Schema:
        """What may stand at a path of a recipe."""
        kind = component_kind(path)
        if kind is not None:
            return self.kind(kind)
        if names_components(path):
            return _or_null({"type": "object", "additionalProperties": self.kind(path[-1])})
        return _with_default(_or_null(_bounded(self.value(key.type, path), key.attribute.validator)), key)

    def kind(self, kind: str) -> Schema:
        """A component of a kind: its name, a mapping with `use`, or one without, which changes what lies below."""
        if kind not in self.definitions:
            self.definitions[kind] = {}
            offered = [component for component in self.catalogue.components if component.kind == kind]
            made = [(component, schema) for component in offered if (schema := self._importable(component))]
            every: Schema = {}
            for name, schema in (pair for _, each in made for pair in each["properties"].items()):
                # a key that two components have is theirs as each means it
                every[name] = schema if every.get(name, schema) == schema else {}
            every.pop("use", None)
            names = sorted({component.name for component, _ in made})
            known = "|".join(sorted({re.escape(component.distribution) for component in self.catalogue.components}))
            elsewhere = {
                "type": "string",
                "pattern": f"^(?!({known}):)[^:]+:[^:]+$",
            }  # a distribution not installed here
            self.definitions[kind] = {
                "anyOf": [
                    {"enum": names},
                    elsewhere,
                    *(schema for _, schema in made),
                    {"type": "object", "properties": {"use": elsewhere}, "required": ["use"]},
                    {**_mapping(every), "not": {"required": ["use"]}},
                    {"type": "null"},
                ]
            }
        return {"$ref": f"#/$defs/{kind}"}

    def _importable(self, component: Registered) -> Schema | None:
        try:
            return self.component(component)
        except (CloraError, NameError, TypeError):  # `clora plugins --load` tells it
            return None

    def component(self, component: Registered) -> Schema:
        """A mapping that uses one component, with its keys."""
        schema = self.section(component.cls, ("", ""))
        use = {"enum": [component.name, f"{component.distribution}:{component.name}"]}
        return {**schema, "properties": {"use": use, **schema["properties"]}, "required": ["use"]}

    def value(self, expected: Any, path: Keypath) -> Schema:
        """What a type means in YAML."""
        origin, members = get_origin(expected), get_args(expected)
        if expected in _SCALARS:
            return {"type": _SCALARS[expected]}
        if origin is Literal:
            return {"enum": list(members)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.value(member, path) for member in members]}
        if expected is type(None):
            return {"type": "null"}
        if origin is tuple and members[1:] != (...,):
            parts = [self.value(member, path) for member in members]
            return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
        if origin in (tuple, list, Sequence):
            return {"type": "array", "items": self.value(members[0], path)}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": _or_null(self.value(members[1], path))}
        if isinstance(expected, type) and attrs.has(expected):
            return self.section(expected, path)
        return {}


def _mapping(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _bounded(schema: Schema, validator: Any) -> Schema:
    """With the bounds of a validator, on the numbers that the schema allows, however deep they lie."""
    bounds = next(bounds_in(validator), None)
    if bounds is None:
        return schema
    if schema.get("type") in ("integer", "number"):
        above = "exclusiveMaximum" if bounds.below else "maximum"
        limits = {"minimum": bounds.low, above: bounds.high}
        return {"anyOf": [{**schema, **limits}, {"const": 0}]} if bounds.zero else {**schema, **limits}
    inner = {key: [_bounded(part, bounds) for part in schema[key]] for key in ("anyOf", "prefixItems") if key in schema}
    return {**schema, **inner, **({"items": _bounded(schema["items"], bounds)} if "items" in schema else {})}


def bounds_in(validator: Any) -> Iterator[Between]:
    """The bounds that a validator of attrs holds: itself, or within `optional`, `and_` or `deep_iterable`."""
    if isinstance(validator, Between):
        yield validator
        return
    for name in ("validator", "member_validator"):
        if (inner := getattr(validator, name, None)) is not None:
            yield from bounds_in(inner)
    parts = getattr(validator, "_validators", ())
    for part in parts:
        yield from bounds_in(part)


def _or_null(schema: Schema) -> Schema:
    """The same, or null."""
    if not schema or {"type": "null"} in schema.get("anyOf", ()):
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


def _with_default(schema: Schema, key: Key) -> Schema:
    """With the default, where JSON has a notation for it."""
    default = key.attribute.default
    if isinstance(default, tuple):
        default = list(default)
    plain = isinstance(default, (bool, int, float, str)) or (
        isinstance(default, list) and all(isinstance(one, (bool, int, float, str)) for one in default)
    )
    return {**schema, "default": default} if plain else schema


def _described(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text} if text else schema

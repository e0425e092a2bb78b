"""The YAML keys of a class in words, as `clora plugins NAME` prints them and the documentation site lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import Factory, frozen, has

from clora.config.fields import Key, keys_of
from clora.config.key_docs import key_docs
from clora.config.messages import described
from clora.plugin_system.json_schema import bounds_in


@frozen
class DescribedKey:
    """One key, every part of it as a person reads it."""

    name: str
    type: str
    bounds: str  # "" where it has none
    default: str | None  # as it is written in YAML; None where the key is required
    meaning: str  # the comment beside the field; "" where there is none


def described_keys(cls: type) -> list[DescribedKey]:
    """The keys of an attrs class in the order of its fields."""
    docs = key_docs(cls)
    return [
        DescribedKey(
            key.name,
            described(key.type),
            next((str(bound) for bound in bounds_in(key.attribute.validator)), ""),
            _default(key),
            docs.get(key.attribute.name, ""),
        )
        for key in keys_of(cls)
    ]


def _default(key: Key) -> str | None:
    if key.required:
        return None
    default: Any = key.attribute.default
    if isinstance(default, Factory):  # pyright: ignore[reportArgumentType] - attrs types Factory as a function
        default = (None if default.takes_self else default.factory()) or "none"
    if has(type(default)):  # a section
        return "its own"
    if isinstance(default, tuple):
        return f"[{', '.join(map(str, default))}]"
    if isinstance(default, Path):  # on this machine
        return "/".join(default.parts[-2:])
    if default == "":
        return '""'
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)

"""The YAML keys of an attrs class: its public fields, with their types.

A field with an alias has that for a key, so that a key may be called as one of the class's methods is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_type_hints

import attrs
from attrs import frozen


@frozen
class Key:
    """One field as a YAML key."""

    name: str
    type: Any
    attribute: attrs.Attribute[Any]

    @property
    def required(self) -> bool:
        """True where the class has no default."""
        return self.attribute.default is attrs.NOTHING


@lru_cache(maxsize=256)  # a recipe may name one class ten thousand times, and reading its types takes long
def keys_of(cls: type) -> tuple[Key, ...]:
    """The keys in the order of the fields; a field whose name starts with an underscore is none.

    Raises NameError or TypeError where an annotation names something that cannot be found at run time.
    """
    hints = get_type_hints(cls)
    return tuple(
        Key(a.alias or a.name, hints.get(a.name, Any), a)
        for a in attrs.fields(cls)
        if a.init and not a.name.startswith("_")
    )


def draft(cls: type, values: Mapping[str, Any]) -> Any:
    """An instance with some fields set and no validator run, for validators that look at other fields."""
    instance = object.__new__(cls)
    for attribute in attrs.fields(cls):
        default = attribute.default
        key = attribute.alias or attribute.name
        if key in values:
            object.__setattr__(instance, attribute.name, values[key])
        elif isinstance(default, attrs.Factory):  # pyright: ignore[reportArgumentType] - attrs types Factory as a function
            if not default.takes_self:
                object.__setattr__(instance, attribute.name, default.factory())
        elif default is not attrs.NOTHING:
            object.__setattr__(instance, attribute.name, default)
    return instance

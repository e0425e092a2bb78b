"""Where in a recipe a component may stand; read off the schema, so that the schema stays the only list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from clora.config.schema import Recipe
from clora.config.tree import Keypath
from clora.contracts.hookspecs import KINDS


def _places(cls: type, above: Keypath) -> Iterator[tuple[Keypath, bool]]:
    for name, hint in get_type_hints(cls).items():
        if hint is Any:
            yield (*above, name), False
        elif get_origin(hint) is dict and get_args(hint)[1] is Any:
            yield (*above, name), True
        else:
            for section in (hint, *get_args(hint)):
                if isinstance(section, type) and attrs.has(section):
                    yield from _places(section, (*above, name))


_PLACES = {path: named for path, named in _places(Recipe, ()) if path[-1] in KINDS}


def names_components(path: Keypath) -> bool:
    """True where a mapping of name -> component stands, such as `losses`."""
    return _PLACES.get(path, False)


def component_kind(path: Keypath) -> str | None:
    """The kind of the component at this path, such as `losses` at losses.ts_dmd; None if no component stands here."""
    if path in _PLACES:
        return None if _PLACES[path] else path[-1]
    return path[-2] if names_components(path[:-1]) else None

"""Files that an installed package brings along, wherever it lies: `clora:quickstart.yaml` is one of clora's recipes.

`PACKAGE:path` is a path below the folder of an importable package; `clora:` means the folder of the shipped recipes. A
file of your own whose name begins so is written `./NAME:rest`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from clora.config.names import path_problem
from clora.errors import CloraError, hint, nearest, quoted

CLORA = "clora"
MOST_FILES = 1_000  # of a package that a misspelt name is compared with

_NAME = re.compile(r"(?P<package>[A-Za-z_][A-Za-z0-9_]+):(?P<rest>.*)", re.DOTALL)
_PACKAGE = Path(__file__).parents[1]


def shipped_recipes() -> Path:
    """The folder of clora's recipes: in the package, or beside it where clora runs from its own repository."""
    inside = _PACKAGE / "recipes"
    return inside if inside.is_dir() else _PACKAGE.parent / "recipes"


def is_package_file(text: str) -> bool:
    """True for `PACKAGE:path`."""
    return _NAME.fullmatch(text) is not None


def placed_file(text: str, folder: Path) -> Path:
    """The absolute path that a text means: in an installed package, or relative to `folder`. No file need be there.

    Raises CloraError for a package that is not installed and for a path that leads out of it.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        return Path(os.path.normpath(folder / Path(text).expanduser()))
    package, rest = found["package"], found["rest"]
    root = _root(package)
    path = Path(os.path.normpath(root / rest))
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    if os.path.isabs(rest) or os.path.commonpath((real, real_root)) != real_root:
        raise CloraError(f"{quoted(text)} leads out of {_what(package)}")
    return path


def recipe_file(text: str, folder: Path) -> Path:
    """The recipe's file that a text means; one of a package is there.

    Raises CloraError for a text that is no path, and as `placed_file` does; with the nearest name where a package has
    no such file.
    """
    problem = path_problem(text)
    if problem is not None:
        raise CloraError(f"the path {quoted(text)} {problem}")
    if not is_package_file(text):
        return folder / text
    path = placed_file(text, folder)
    if path.is_file():
        return path
    package, _, rest = text.partition(":")
    names = sorted(_names(package))
    close = nearest(rest, names)  # without the package, which all have in common
    meant = f"; did you mean '{package}:{close}'?" if close else hint("", (f"{package}:{name}" for name in names))
    raise CloraError(f"{_what(package)} have no file {quoted(text)}{meant}")


def _root(package: str) -> Path:
    if package == CLORA:
        return shipped_recipes()
    try:
        spec = find_spec(package)  # a name without a dot: nothing is imported
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders or not os.path.isdir(folders[0]):
        plugins = {each.module.partition(".")[0] for each in entry_points(group="clora.plugins")}
        raise CloraError(f"no package {quoted(package)} with files is installed{hint(package, {CLORA, *plugins})}")
    return Path(folders[0])


def _what(package: str) -> str:
    return "the recipes of clora" if package == CLORA else f"the files of {package}"


def _names(package: str) -> Iterator[str]:
    root = _root(package)
    found = islice(root.rglob("*.yaml"), MOST_FILES)
    return (file.relative_to(root).as_posix() for file in found)

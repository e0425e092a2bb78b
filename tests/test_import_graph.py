"""No module of the core imports, by whatever way round, one that imports it; imports for types alone count."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

CORE = Path(__file__).parents[1] / "clora"


def modules(root: Path) -> dict[str, Path]:
    """Every module below a package, by its dotted name."""
    names = {".".join((root.name, *file.relative_to(root).with_suffix("").parts)): file for file in root.rglob("*.py")}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imports(root: Path) -> dict[str, set[str]]:
    """What each module imports of the same package, anywhere in its text."""
    known = modules(root)
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, file in known.items():
        for node in ast.walk(ast.parse(file.read_text())):
            asked: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                submodules = [f"{node.module}.{alias.name}" for alias in node.names]
                asked = [each if each in known else node.module for each in submodules]
            elif isinstance(node, ast.Import):
                asked = [alias.name for alias in node.names]
            found[name] |= {each for each in asked if each in known and each != name}
    return found


def circles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Modules that reach one another, a list for each such group (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> Iterator[list[str]]:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in number:
                yield from visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                yield sorted(group)

    for name in graph:
        if name not in number:
            yield from visit(name)


def test_the_core_has_no_circle_of_imports() -> None:
    assert list(circles(imports(CORE))) == []


def test_a_circle_is_found_though_a_part_of_it_is_for_types_or_within_a_function(tmp_path: Path) -> None:
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from house import b\n")
    (package / "b.py").write_text("def f():\n    from house.c import x\n")
    (package / "c.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.a\n")
    (package / "d.py").write_text("import house.a\n")
    assert list(circles(imports(package))) == [["house.a", "house.b", "house.c"]]

"""References to code, `path::name`, with the code itself beside them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent, indent

_REFERENCE = re.compile(r"`([\w/.-]+\.py)::([\w.]+)`")
_PARAGRAPH = re.compile(r"^Code: .*?(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)


def references(text: str) -> Iterator[tuple[str, str]]:
    """(path, name) of every reference on a page."""
    return ((match[1], match[2]) for match in _REFERENCE.finditer(text))


def source_of(root: Path, path: str, name: str) -> str | None:
    """The source of a function, a class or a method `Class.method` of a file; None where there is none."""
    if not (root / path).is_file():
        return None
    source = (root / path).read_text()
    node: ast.AST | None = ast.parse(source)
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        body = getattr(node, "body", ())
        node = next((each for each in body if isinstance(each, kinds) and each.name == part), None)
    return None if node is None else dedent(ast.get_source_segment(source, node, padded=True) or "")


def wrong_references(root: Path, text: str) -> list[str]:
    """The references of a page behind which there is nothing."""
    return [f"{path}::{name}" for path, name in references(text) if source_of(root, path, name) is None]


def with_code(root: Path, text: str) -> str:
    """The page with the code of every reference in a paragraph `Code: ...` folded up under that paragraph."""

    def unfolded(match: re.Match[str]) -> str:
        blocks = [
            f'??? abstract "{name}"\n\n' + indent(f"```python\n{source_of(root, path, name)}\n```", "    ")
            for path, name in references(match[0])
        ]
        return "\n\n".join([match[0].strip(), *blocks]) + "\n\n"

    return _PARAGRAPH.sub(unfolded, text)

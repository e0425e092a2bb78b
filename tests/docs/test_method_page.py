"""docs/method.md: every equation stands beside the code that computes it and the test that holds it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/method.md").read_text()
REFERENCES = re.findall(r"`([\w/]+\.py)::([\w.]+)`", PAGE)


def names_in(path: Path) -> set[str]:
    """The functions, classes and methods (`Class.method`) of a file."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("path", "name"), REFERENCES, ids=[name for _, name in REFERENCES])
def test_what_the_page_names_is_there(path: str, name: str) -> None:
    assert name in names_in(ROOT / path)


def test_every_equation_has_its_test_and_every_code_reference_is_no_test() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    with_equations = [section for section in sections if "```math" in section]
    assert len(with_equations) > 10
    for section in with_equations:
        tests = re.findall(r"^Test: (.*?)(?:\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
        assert tests, section
        assert all("::test_" in reference for paragraph in tests for reference in re.findall(r"`.*?`", paragraph))
        code = re.findall(r"^Code: (.*?)(?:\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
        assert not any("::test_" in paragraph for paragraph in code)

"""YAML's traps and bombs: told at their line, never built."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora.config import yaml_parser
from clora.config.tree import Keys, Mark, Text


def problems(text: str) -> list[str]:
    parsed = yaml_parser.parse(text, lambda line, column: Mark("f", Path(), None, line, column))
    return [str(problem) for problem in parsed.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: key 'a' is already given at line 1"),
        ("a: !!python/object/apply:os.system [x]\n", "f:1:4: tag '!!python/object/apply:os.system' is not allowed"),
        ("a: !mine x\n", "f:1:4: tag '!mine' is not allowed"),
        ("a: !!str 3\n", "f:1:4: tag '!!str' is not allowed"),
        ("!!str a: 3\n", "f:1:1: a tag on key 'a' is not allowed"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "f:2:5: merge keys (<<) are not supported; use `extends`"),
        ("a: 1\n---\nb: 2\n", "f:2:1: a second document; a recipe is one"),
        ("? [a]\n: 1\n", "f:1:3: a key must be one word"),
        ("a: *x\n", "f:1:4: alias 'x' names no anchor above it"),
        ("a: &x [*x]\n", "f:1:8: alias 'x' stands inside its own anchor"),
        ("a: [1\n", "f:2:1: not YAML: "),
        ("a: b: c\n", "f:1:5: not YAML: mapping values are not allowed here"),
        ("a: 1\nb: \x07\n", "f:2:1: not YAML: special characters are not allowed (character 7)"),
        ("a: " + "[" * 60 + "]" * 60, "f:1:44: nested deeper than 40 levels"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9)]
    (found,) = problems("\n".join(lines))
    assert "more than 20000 values" in found


def test_an_honest_alias_is_its_anchor() -> None:
    parsed = yaml_parser.parse("a: &x [1, 2]\nb: *x\n", lambda line, column: Mark("f", Path(), None, line, column))
    assert isinstance(parsed.tree, Keys)
    assert parsed.tree.get("a") is parsed.tree.get("b")


def test_places_are_counted_from_one() -> None:
    parsed = yaml_parser.parse("a:\n  b: 'c'\n", lambda line, column: Mark("f", Path(), None, line, column))
    assert isinstance(parsed.tree, Keys)
    section = parsed.tree.get("a")
    assert isinstance(section, Keys)
    assert str(section.mark) == "f:1:1"
    value = section.get("b")
    assert isinstance(value, Text)
    assert (str(value.mark), value.text, value.plain) == ("f:2:6", "c", False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: 1\nb: \xff\n", ":2:1: is not UTF-8 text"),
        (b"#" * 1_000_001, ": is larger than 1000000 bytes, which no recipe is"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    assert [str(p) for p in yaml_parser.parse_file(file).problems] == [f"{file}{problem}"]


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    (problem,) = yaml_parser.parse_file(tmp_path).problems
    assert "cannot be read: Is a directory" in str(problem)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    tree = yaml_parser.parse_file(file).tree
    assert isinstance(tree, Keys)
    assert list(tree.entries) == ["a"]

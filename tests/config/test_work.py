"""Reading takes work that grows with the text and no faster: calls are counted, of a text and of its double."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from clora.config import RecipeError, yaml_parser
from clora.config.tree import Mark

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

SHAPES: dict[str, Callable[[int], str]] = {
    "keys": lambda n: "".join(f"k{i}: 1\n" for i in range(n // 8)),
    "keys of one line": lambda n: "a: " * (n // 3),
    "dashes of one line": lambda n: "- " * (n // 2),
    "lines of dashes": lambda n: "-\n" * (n // 2),
    "open brackets": lambda n: "a: " + "[" * n,
    "open brackets on lines": lambda n: "a: " + "[\n" * (n // 2),
    "closed brackets": lambda n: "a: [" + ("[" * 30 + "]" * 30 + ",") * (n // 61) + "]",
    "open braces": lambda n: "a: " + "{" * n,
    "complex keys": lambda n: "? " * (n // 2),
    "a flow list": lambda n: "a: [" + "x," * (n // 2) + "]",
    "a flow mapping": lambda n: "a: {" + ",".join(f"k{i}" for i in range(n // 6)) + "}",
    "one key again and again": lambda n: "a: 1\n" * (n // 5),
    "a plain text": lambda n: "a: " + "x" * n,
    "a plain text of words": lambda n: "a: " + "x " * (n // 2),
    "a plain text of lines": lambda n: "a: x\n" + " x\n" * (n // 3),
    "a key of all": lambda n: "x" * n + ": 1",
    "a quoted text": lambda n: 'a: "' + "x\n " * (n // 3) + '"',
    "an open quotation": lambda n: 'a: "' + "x\n\n" * (n // 3),
    "escapes": lambda n: 'a: "' + r"\u0041" * (n // 6) + '"',
    "a block": lambda n: "a: |\n" + " x\n" * (n // 3),
    "empty lines of a block": lambda n: "a: >\n" + "\n" * n,
    "a comment": lambda n: "# " + "x" * n,
    "spaces": lambda n: " " * n + "a: 1",
    "steps of indentation": lambda n: "\n".join(" " * i + "a:" for i in range(int(n**0.5))),
    "anchors": lambda n: "a: [" + ",".join(f"&a{i} x" for i in range(n // 8)) + "]",
    "aliases": lambda n: "a: &a [x]\nb: [" + "*a," * (n // 3) + "]",
    "tags": lambda n: "a: [" + "!x y," * (n // 5) + "]",
    "directives": lambda n: "".join(f"%TAG !a{i}! b\n" for i in range(n // 13)) + "--- a",
    "documents": lambda n: "---\n" * (n // 4),
    "colons": lambda n: "a: " + ":" * n,
    "commas": lambda n: "[" + "," * n,
}


def calls(work: Callable[[], object]) -> int:
    """How many functions, Python's own included, are called."""
    count = 0

    def called(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def place(line: int, column: int) -> Mark:
    return Mark("f", Path(), None, line, column)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_work_of_parsing_is_linear(shape: Callable[[int], str]) -> None:
    once, twice = (calls(lambda n=n: yaml_parser.parse(shape(n), place)) for n in (4_000, 8_000))
    assert twice <= 2.2 * once + 1_000


def works(load, text: Callable[[int], str]) -> list[int]:
    """The calls of reading a recipe of some, and of twice as many mistakes or values."""

    def read(n: int) -> None:
        with suppress(RecipeError):  # whose lines are made with it
            load(text(n))

    return [calls(lambda n=n: read(n)) for n in (200, 400)]


@pytest.mark.parametrize(
    "text",
    [
        lambda n: "".join(f"stepz_{i}: 1\n" for i in range(n)),
        lambda n: "losses:\n" + "".join(f"  l{i}: plane_{i}\n" for i in range(n)),
        lambda n: "losses:\n" + "".join(f"  l{i}: {{use: plain, streams: [effekt]}}\n" for i in range(n)),
        lambda n: "losses:\n" + "".join(f"  l{i}: plain\n" for i in range(n)),
        lambda n: (
            "simulations:\n"
            + "".join(f"  s{i}: target\n" for i in range(n))
            + "losses:\n"
            + "".join(f"  l{i}: {{use: matching, simulation: t{i}}}\n" for i in range(n))
        ),
        lambda n: f"effects: [{', '.join(f'e{i}' for i in range(n))}]",
    ],
    ids=["unknown keys", "unknown components", "bad values", "components", "unknown simulations", "a list"],
)
def test_the_work_of_many_mistakes_is_linear(load, text: Callable[[int], str]) -> None:
    once, twice = works(load, text)
    assert twice <= 2.2 * once


def test_the_place_of_a_value_asks_the_file_system_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("a: [" + "x, " * 1_000 + "]")
    asked: list[Path] = []
    here = Path.cwd()
    monkeypatch.setattr(Path, "cwd", lambda: asked.append(here) or here)
    assert yaml_parser.parse_file(file).tree is not None
    assert len(asked) == 1


def test_parents_that_are_together_too_large(load, write) -> None:
    for i in range(3):
        write(f"extends: {'right' if i == 2 else f'p{i + 1}'}.yaml\n#{'x' * 900_000}\n", f"p{i}.yaml")
    with pytest.raises(RecipeError, match="the files of this recipe are together larger than 2,000,000 bytes"):
        load(extends="p0.yaml")


def test_a_recipe_that_could_not_be_read_again_is_refused(load) -> None:
    texts = ", ".join(["\u200f" * 9_000] * 30)  # three bytes each, and six once they are escaped
    with pytest.raises(
        RecipeError, match=r"r.yaml:1:1: has [\d,]+ bytes with every value written out; at most 1,000,000"
    ):
        load(f"effects: [{texts}]")
    with pytest.raises(RecipeError, match=r"r.yaml:1:1: has [\d,]+ values with every default; at most 20,000"):
        load("losses:\n" + "".join(f"  l{i}: plain\n" for i in range(6_000)))

"""The core's code names no model family, no metric and no plugin; comments and docstrings may, as examples."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from clora.contracts import hookspecs
from clora.plugin_system.discovery import discover

CORE = Path(__file__).parents[1] / "clora"
FAMILIES = ("qwen", "flux", "emoji", "bad_case")
#: how several programs write and read LoRA files is what one room is about
PROGRAMS = ("comfyui", "kohya")
THEIR_ROOM = "lora_io"


def strings_and_names(text: str) -> Iterator[str]:
    """Every name and every string of a module's code, without comments and docstrings."""
    documented = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented.add(node.value.lineno)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME or (token.type == tokenize.STRING and token.start[0] not in documented):
            yield token.string


def named(text: str, words: frozenset[str]) -> set[str]:
    """The words that stand in a module's code, alone or as a part of a name in snake_case."""
    found = set()
    for token in strings_and_names(text):
        parts = re.split(r"[^a-z0-9_]+", token.lower())
        found |= {word for word in words for part in parts if f"_{word}_" in f"_{part}_"}
    return found


def test_the_core_names_no_model_family_no_metric_and_no_plugin() -> None:
    components = {each.name for each in discover().components if each.kind in ("metrics", "backbone")}
    hooks = {name for name in vars(hookspecs) if name.startswith("clora_")}
    plugins = {path.name for path in (CORE.parent / "plugins").glob("clora_*")} - hooks
    words = frozenset({*FAMILIES, *(components - {"truth"}), *plugins})
    assert {"qwen_image_edit", "similarity", "clora_dmd"} <= words
    found = {}
    for file in CORE.rglob("*.py"):
        room = file.relative_to(CORE).parts[0]
        found[file.name] = named(file.read_text(), words | (set() if room == THEIR_ROOM else set(PROGRAMS)))
    assert {name: each for name, each in found.items() if each} == {}


def test_a_name_in_a_string_or_in_code_is_found_and_one_in_a_docstring_is_not() -> None:
    words = frozenset({"qwen", "bad_case"})
    assert named('"""Such as Qwen."""\nx = 1  # Qwen\n', words) == set()
    assert named('x = "Qwen image"\n', words) == {"qwen"}
    assert named("bad_case_rate = 1\n", words) == {"bad_case"}
    assert named('def f():\n    """Qwen."""\n    return load_qwen()\n', words) == {"qwen"}

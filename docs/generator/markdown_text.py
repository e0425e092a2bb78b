"""Text of docstrings and comments as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`[^`]*`)")
_MARKUP = re.compile(r"[*<>\[\]|]")


def plain(text: str) -> str:
    """The text with what Markdown would read as markup escaped, outside its code in backticks."""
    parts = _CODE.split(text)
    return "".join(part if part.startswith("`") else _MARKUP.sub(r"\\\g<0>", part) for part in parts)


def paragraphs(docstring: str | None) -> list[str]:
    """The paragraphs of a docstring, each on one line, as Markdown."""
    text = inspect.cleandoc(docstring or "")
    return [plain(" ".join(part.split())) for part in text.split("\n\n") if part.strip()]


def first_sentence(docstring: str | None) -> str:
    """The first sentence of a docstring's first paragraph, as Markdown; "" where there is none."""
    first = next(iter(paragraphs(docstring)), "")
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", first, maxsplit=1)[0]


def code(text: str) -> str:
    """The text as code, safe in a table's cell."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; the cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]

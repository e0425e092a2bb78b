"""What a key means: the comment that stands beside its field in the source, and its class's first sentence."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from collections.abc import Mapping
from functools import cache
from textwrap import dedent


def paragraphs_of(cls: type) -> list[str]:
    """The paragraphs of a class's own docstring, each on one line."""
    text = inspect.cleandoc(cls.__doc__ or "")
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def sentence_of(cls: type) -> str:
    """The first paragraph of a class's own docstring, on one line; empty where it has none."""
    return next(iter(paragraphs_of(cls)), "")


@cache
def key_docs(cls: type) -> Mapping[str, str]:
    """The comments of a class's fields by name: those above them that begin with `#:`, and those on their last line.

    A field without one is not in it; a class whose source is not there has none. A subclass has its bases' too.
    """
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each is not object and each.__module__ != "builtins":
            found |= _own(each)
    return found


def _own(cls: type) -> dict[str, str]:
    try:
        source = dedent(inspect.getsource(cls))
        body = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):  # a class of attrs' own making, or one that was typed in
        return {}
    if not isinstance(body, ast.ClassDef):
        return {}
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = _text(comments, node.lineno, node.end_lineno or node.lineno)
            if text:
                found[node.target.id] = text
    return found


def _text(comments: Mapping[int, str], first: int, last: int) -> str:
    above = []
    line = first - 1
    while comments.get(line, "").startswith("#:"):
        above.insert(0, comments[line][2:].strip())
        line -= 1
    beside = comments.get(last, "").lstrip("#").strip()
    return " ".join(part for part in (" ".join(above), beside) if part and not part.startswith(("noqa", "pyright:")))

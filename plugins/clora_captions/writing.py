"""Writes one entry of a captions file; what people wrote around it, comments too, stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap

import yaml

from clora.api import (
    MAX_PROMPT,
    CaptionsError,
    WrittenCaption,
    captions_text,
    compose,
    parse_captions,
    quoted,
    shown,
    text_problem,
    write_atomic,
)

HEAD = """\
# The effects' captions: what the student reads after the trigger. Edit them as you like; `clora caption` keeps an
# edited one. `by` is the model that wrote it, `request` stands for what it was asked, `answer` for what it answered.
"""


def put_caption(path: Path, effect: str, written: WrittenCaption) -> None:
    """Write one effect's entry and leave the rest of the file as it is; in one step. Raises CloraError."""
    for part in (effect, written.caption, written.by, written.request, written.answer):
        if (wrong := text_problem(part, MAX_PROMPT)) is not None:
            raise CaptionsError(f"{shown(path)}: not written, {quoted(part)} {wrong}")
    text = captions_text(path)
    wanted = parse_captions(text, path) | {effect: written}
    changed = _with_entry(text, effect, written)
    try:
        same = parse_captions(changed, path) == wanted
    except CaptionsError:
        same = False
    if not same:  # a layout that lines cannot be exchanged in, such as {a: b} or an anchor
        changed = HEAD + "".join(f"\n{_block(name, entry)}" for name, entry in wanted.items())
    write_atomic(path, changed)


def _with_entry(text: str, effect: str, written: WrittenCaption) -> str:
    """The text with the effect's lines exchanged, or with new ones at its end."""
    block = _block(effect, written)
    root = compose(text)
    if not isinstance(root, yaml.MappingNode):
        return f"{text.rstrip()}\n\n{block}" if text.strip() else f"{HEAD}\n{block}"
    lines = text.splitlines(keepends=True)
    starts = [key.start_mark.line for key, _ in root.value]
    names = [key.value for key, _ in root.value]
    if effect not in names:
        return f"{text.rstrip()}\n\n{block}"
    here = names.index(effect)
    start, end = starts[here], (*starts, len(lines))[here + 1]
    while end > start + 1 and re.fullmatch(r"\s*|#.*\s*", lines[end - 1]):
        end -= 1  # blank lines and comments before the next entry are the next entry's
    return "".join([*lines[:start], block, *lines[end:]])


def _block(effect: str, written: WrittenCaption) -> str:
    """An entry as YAML, its caption in lines that fit a screen."""
    lines = wrap(written.caption, 100, break_long_words=False, break_on_hyphens=False)
    text = "".join(f"    {line}\n" for line in lines)
    return f"{_scalar(effect)}:\n  caption: >-\n{text}{''.join(_rest(written))}"


def _rest(written: WrittenCaption) -> Iterable[str]:
    for key, value in (("by", written.by), ("request", written.request), ("answer", written.answer)):
        if value:
            yield f"  {key}: {_scalar(value)}\n"


def _scalar(text: str) -> str:
    """A text on one line, quoted where YAML would read something else."""
    return yaml.safe_dump(text, width=1_000_000, allow_unicode=True).splitlines()[0]

"""The words that a run reads and writes: names become adapters, files and columns, prompts go to text encoders."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from clora.errors import quoted

if TYPE_CHECKING:
    from clora.values import EffectCard, GeneralItem

#: bytes of a name in UTF-8: files that begin with it, such as NAME-0123456789abcdef.tmp, may have 255
MOST_NAME_BYTES = 100
#: characters of a prompt: text encoders read some hundred tokens of it
MOST_LETTERS = 4000
#: instructions that are looked at; a list of more is made by a rule, not written by hand
MOST_ITEMS = 1_000_000
#: mistakes that are told of one kind
MOST_TOLD = 10


def name_problem(name: str) -> str | None:
    """What is wrong with a name, as the end of a sentence; None where nothing is."""
    if not name:
        return "is empty"
    problem = text_problem(name, layout="")
    if problem is not None:
        return problem
    if len(name.encode()) > MOST_NAME_BYTES:
        return f"has {len(name.encode()):,} bytes; a name has at most {MOST_NAME_BYTES}"
    if "/" in name or "\\" in name or name.startswith("."):
        return "must not hold / or \\ nor begin with a dot, for it becomes a file's name"
    return None


def text_problem(text: str, layout: str = "\n\t\r") -> str | None:
    """What is wrong with a text that a model reads, as the end of a sentence; None where nothing is.

    `layout` has the control characters that are no mistake.
    """
    if len(text) > MOST_LETTERS:
        return f"has {len(text):,} characters; at most {MOST_LETTERS:,} are read"
    for letter in text:
        category = unicodedata.category(letter)
        if category == "Cs":
            return "holds half of a surrogate pair, which no encoding has"
        if category == "Cc" and letter not in layout:
            return f"holds the control character {quoted(letter)}"
    return None


def card_problems(cards: Sequence[EffectCard]) -> Iterable[str]:
    """Effects whose name or words nothing can be called or read, a sentence each."""
    found = (sentence for card in cards for sentence in _card_problems(card))
    yield from islice(found, MOST_TOLD)


def _card_problems(card: EffectCard) -> Iterable[str]:
    problem = name_problem(card.name)
    if problem is not None:
        yield f"the effect's name {quoted(card.name)} {problem}"
    words = {"teacher_prompt": card.teacher_prompt, "caption": card.caption, "trigger": card.trigger or ""}
    for key, text in words.items():
        problem = text_problem(text)
        if problem is not None:
            yield f"{quoted(card.name)}: its {key} {quoted(text)} {problem}"


def instruction_problems(items: Sequence[GeneralItem]) -> Iterable[str]:
    """Instructions of the general stream that no model can read, a sentence each; a text is looked at once."""
    texts = dict.fromkeys(item.instruction for item in islice(items, MOST_ITEMS))
    found = (f"the instruction {quoted(text)} {problem}" for text in texts if (problem := text_problem(text)))
    yield from islice(found, MOST_TOLD)

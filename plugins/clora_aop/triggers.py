"""Triggers: words that stand for one effect and occur in no other's prompts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b

SUFFIX_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SUFFIX_LENGTH = 7


def made_trigger(name: str, seed: int) -> str:
    """`<name_SUFFIX>` with seven letters or digits hashed from (seed, name)   (paper: `<effectname_RN8pcKD>`).

    Stable across runs and machines, since the exported student answers to it. What is no letter, digit or underscore
    leaves the name, so that the trigger stays one word between its brackets.
    """
    digest = blake2b(f"{seed}|{name}".encode(), digest_size=16).digest()
    number = int.from_bytes(digest, "little")
    letters: list[str] = []
    for _ in range(SUFFIX_LENGTH):
        number, letter = divmod(number, len(SUFFIX_LETTERS))
        letters.append(SUFFIX_LETTERS[letter])
    return f"<{re.sub(r'[^0-9A-Za-z_]', '', name) or 'effect'}_{''.join(letters)}>"


def words(text: str) -> tuple[str, ...]:
    """The text as words and single signs, whatever their case: the finest cut that any tokenizer respects."""
    return tuple(re.findall(r"\w+|[^\w\s]", text.casefold()))


def contains(text: str, part: str) -> bool:
    """Whether `part`'s words stand in `text` one after another."""
    here, wanted = words(text), words(part)
    return any(here[i : i + len(wanted)] == wanted for i in range(len(here) - len(wanted) + 1))


def collisions(effects: Sequence[tuple[str, str, str, str]]) -> Iterator[str]:
    """Sentences on the (name, trigger, student prompt, teacher prompt) of effects that a reader could mix up.

    Two effects with one trigger, or a trigger inside the words of another effect, would make the student answer one
    request with the other's effect.
    """
    for i, (name, trigger, _, _) in enumerate(effects):
        if not words(trigger):
            yield f"effect {name!r}: its trigger has no words"
            continue
        for j, (other, other_trigger, student, teacher) in enumerate(effects):
            if i == j:
                continue
            if words(trigger) == words(other_trigger):
                if i < j:
                    yield f"effects {name!r} and {other!r} have the same trigger {trigger!r}"
                continue
            for reader, prompt in (("student", student), ("teacher", teacher)):
                if contains(prompt, trigger):
                    yield (f"effect {name!r}: its trigger {trigger!r} stands in the {reader} prompt of {other!r} too")
                    break

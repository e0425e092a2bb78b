"""The errors that a person is meant to read: printed without a traceback, with the word that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class CloraError(Exception):
    """Something the person at the keyboard can put right; the message says what."""

    exit_code: ClassVar[int] = 2


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word of `words` that `word` most resembles, or None if nothing is close."""
    by_lower = {known.lower(): known for known in words}
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def hint(word: str, words: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or else all of them."""
    known = sorted(words)
    close = nearest(word, known)
    if close is not None:
        return f"; did you mean {close!r}?"
    return f"; known: {', '.join(known)}" if known else ""

"""What a word on the command line may be: text, and numbers between two bounds."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

from clora.errors import CloraError, quoted

#: characters of one word: what Linux passes on
MAX_WORD = 131_072


def check_lengths(words: Sequence[str]) -> None:
    """Raise CloraError for a word of more than MAX_WORD characters: argparse would repeat it whole."""
    for number, word in enumerate(words, 1):
        if len(word) > MAX_WORD:
            raise CloraError(f"word {number} of the command line has {len(word):,} characters: {quoted(word)}")


def check_words(words: Sequence[str]) -> None:
    """Raise CloraError for a word that is no text: bytes that are not UTF-8, NUL."""
    for number, word in enumerate(words, 1):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise CloraError(f"word {number} of the command line is no text in UTF-8: {quoted(word)}") from None
        if "\0" in word:
            raise CloraError(f"word {number} of the command line holds a NUL: {quoted(word)}")


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `low` to `high`."""

    def read(text: str) -> int:
        # twenty digits are more than any bound, and Python refuses to read thousands of them
        if not text.removeprefix("-").isdecimal() or len(text) > 20 or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low:,} to {high:,}, found {quoted(text)}")
        return int(text)

    return read


def share(text: str) -> float:
    """The type of an argument that is a part of the whole, from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {quoted(text)}")
    return value

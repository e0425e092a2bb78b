"""The errors that a person is meant to read: printed without a traceback, with the word that was probably meant.

A foreign text in a message goes through `quoted`, `reason` or `shown`: one line, bounded, and nothing in it that steers
a terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

#: characters that a message repeats of a foreign text, of a library's own sentence, and of a path
QUOTED, REASON, PATH = 60, 160, 400
#: characters of a message's line that are printed
LINE = 2000
#: characters of the known words that a message lists
LISTED = 240
#: words longer than this are like no other: comparing them takes time that grows with the square of their length
MOST_COMPARED = 100
#: Unicode categories that are never shown as they are: control, format (direction marks), surrogates, private use,
#: unassigned, separators of lines and paragraphs
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class CloraError(Exception):
    """Something the person at the keyboard can put right; the message says what."""

    exit_code: ClassVar[int] = 2


def quoted(value: object, most: int = QUOTED) -> str:
    """A foreign text (or a value as Python writes it) in quotes, on one line, with how much of it was left out.

    `'turn it into clay'`, `'root:x:0:0' (8,012 more characters)`. Control and direction characters are escaped.
    """
    text = value if isinstance(value, str) else _written(value)
    more = len(text) - most
    left_out = f" ({more:,} more characters)" if more > 0 else ""
    if not isinstance(value, str):
        return escaped(text[:most]) + left_out
    start = escaped(text[:most].replace("\\", "\\\\"))
    if "'" in start and '"' not in start:
        return f'"{start}"{left_out}'
    return "'" + start.replace("'", "\\'") + "'" + left_out


def reason(error: BaseException | str, most: int = REASON) -> str:
    """A library's own sentence on what went wrong: its first line that says anything, escaped and cut."""
    lines = (line.strip() for line in str(error)[:10_000].splitlines())
    first = next((line for line in lines if line), type(error).__name__)
    return escaped(first[:most]) + ("..." if len(first) > most else "")


def shown(path: str | Path, most: int = PATH) -> str:
    """A path in a message: escaped, and of a long one its end."""
    text = str(path)
    return escaped(text) if len(text) <= most else f"...{escaped(text[-most:])}"


def escaped(text: str) -> str:
    """The text with all that is invisible or steers a terminal written as \\n, \\x1b or \\u202e."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(letter) if unicodedata.category(letter) in _UNSEEN else letter for letter in text)


def printable(message: str) -> str:
    """A message as a terminal may have it: its lines escaped and cut. The last net, where a part forgot to quote."""
    lines = message.split("\n")
    return "\n".join(escaped(line) if len(line) <= LINE else f"{escaped(line[:LINE])}..." for line in lines)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _written(value: object) -> str:
    """A value as Python writes it; an integer of thousands of digits, which Python refuses to write, by its size."""
    try:
        return repr(value)
    except ValueError:
        return (
            f"an integer of about {value.bit_length() * 0.30103:,.0f} digits" if isinstance(value, int) else "a value"
        )


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word of `words` that `word` most resembles, or None if nothing is close."""
    if len(word) > MOST_COMPARED:
        return None
    by_lower = {known.lower(): known for known in words}
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def hint(word: str, words: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or else all of them."""
    known = sorted(words)
    close = nearest(word, known)
    if close is not None:
        return f"; did you mean {quoted(close)}?"
    return f"; known: {_listed(known)}" if known else ""


def _listed(words: Sequence[str]) -> str:
    """As many words as fit, and how many do not."""
    told = ""
    for count, word in enumerate(words):
        longer = f"{told}, {escaped(word[:QUOTED])}" if told else escaped(word[:QUOTED])
        if told and len(longer) > LISTED:
            return f"{told} and {len(words) - count} more"
        told = longer
    return told

"""What a model answered, as a caption: tidied, or refused with the reason."""

from __future__ import annotations

import re

from clora.api import quoted

MAX_CHARACTERS = 2000
MIN_WORDS = 3

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」", "`": "`"}
_THINKS, _HAS_THOUGHT = re.compile("<think>", re.IGNORECASE), re.compile("(</think>)", re.IGNORECASE)
_REFUSES = re.compile(
    r"\b(i am|i'm|i’m) (very |so )?(sorry|unable|not able|afraid)\b|\bas an ai\b|\bas a (large )?language model\b"
    r"|\bi (cannot|can't|can’t|won't|won’t|could not|couldn't) (see|view|help|assist|write)\b"
    r"|\bi (cannot|can't|can’t) (describe|identify|comply|provide)\b"
    r"|^(sorry|unfortunately|i apologi[sz]e)\b",
    re.IGNORECASE,
)  # fmt: skip
#: what only someone with the pairs before them can follow; "the image" and "the input image" are what any edit is of
_PICTURES = re.compile(
    r"\b(?i:image|picture|photo|pair|example)s? (#? ?\d|[AB]\b)"
    r"|(?i:\b(first|second|third|fourth|these|both) (image|picture|photo|pair|example)s?\b)"
    r"|(?i:\bbefore[ -/]+(and[ -])?after\b)",
)
_TALKS = re.compile(
    r"^(sure|certainly|of course|okay|here is|here's|here’s)\b|^\W*(the )?(new |better |improved |refined )?"
    r"(instruction|prompt|caption)\W*:",
    re.IGNORECASE,
)


def tidied(answer: str) -> str:
    """The answer on one line, without a reasoning model's thoughts, quotation marks around it, or unprintable signs."""
    text = " ".join(_without_thoughts(answer).split())
    text = "".join(letter for letter in text if letter.isprintable()).strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _without_thoughts(answer: str) -> str:
    """What stands outside of <think>...</think>, in one pass: an answer may begin a million thoughts and end none."""
    *ended, rest = _HAS_THOUGHT.split(answer)
    kept: list[str] = []
    for before, end in zip(ended[::2], ended[1::2], strict=True):
        begun = _THINKS.search(before)
        kept += [before, end] if begun is None else [before[: begun.start()], " "]
    return "".join([*kept, rest])


def wrong_with(caption: str) -> str | None:
    """Why a tidied answer is no caption, in words that follow "it"; None where it is one."""
    if not caption:
        return "is empty"
    if len(caption) > MAX_CHARACTERS:
        return f"is too long: {len(caption)} characters, at most {MAX_CHARACTERS}"
    if caption[0] in "{[" or "```" in caption:
        return "is JSON or code, not an instruction"
    if caption[0] in "#*-" or "**" in caption:
        return "has a heading or a list in it, not an instruction alone"
    if "<think>" in caption or "</think>" in caption:
        return "breaks off in its thoughts"
    if found := _REFUSES.search(caption):
        return f"refuses: {quoted(found[0])}"
    if found := _TALKS.search(caption):
        return f"says {quoted(found[0])} before the instruction"
    if found := _PICTURES.search(caption):
        return f"mentions {quoted(found[0])}, which nobody sees who reads the instruction"
    if len(caption.split()) < MIN_WORDS and caption.isascii():  # some scripts put no spaces between words
        return f"is too short: {quoted(caption)}"
    return None

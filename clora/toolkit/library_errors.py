"""What diffusers, transformers and the Hub's client raise and log over a model's files, cut before it is shown.

They put whole values and whole configurations into their sentences, and raise whatever their code ran into.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from clora.errors import QUOTED, CloraError, escaped, reason

#: characters of a library's message to the terminal
MAX_LOGGED = 500
#: the environment's variables that hold the key to the Hub
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
LIBRARIES = ("diffusers", "transformers", "huggingface_hub", "py.warnings")
#: a token of the Hub, and what a request carries it in
_SECRET = re.compile(
    r"hf_[A-Za-z0-9]{8,}|(?i:(?:proxy-)?authorization\W{1,4}(?:(?:bearer|basic)\s+)?|bearer\s+)[^\s'\"]+"
)

#: a value in a library's sentence that is longer than a message repeats: one word, or a text in quotes
_LONG = re.compile(rf"[^\s/]{{{QUOTED + 1},}}|'[^'\n]{{{QUOTED + 1},}}'|\"[^\"\n]{{{QUOTED + 1},}}\"")


def without_tokens(text: str) -> str:
    """The text without a Hub's token: neither the environment's own nor what looks like one."""
    for token in (os.environ.get(name, "").strip() for name in TOKENS):
        if len(token) >= 4:  # less is no token, and would blot out words
            text = text.replace(token, "***")
    return _SECRET.sub("***", text)


def library_reason(error: BaseException) -> str:
    """A library's own sentence on what went wrong, without tokens: its first line, escaped and cut, and the
    next where the first only announces it.

    A bare name or number, such as a KeyError's, is said with the kind of error.
    """
    text = _LONG.sub(lambda found: f"{found[0][:QUOTED]}...", without_tokens(str(error)[:100_000]))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # what follows is the reason
        lines[0] = f"{lines[0]} {lines[1]}"
    said = reason(lines[0]) if lines else type(error).__name__
    return f"{type(error).__name__}: {said}" if len(said) < 30 and said != type(error).__name__ else said


@contextmanager
def library_errors(where: str) -> Iterator[None]:
    """Within it, whatever a library raises becomes a CloraError: `where`, then the library's reason.

    CloraErrors, a GPU's lack of memory and a person's interrupt pass.
    """
    _cut_logs()
    try:
        yield
    except CloraError:
        raise
    except BaseException as error:
        # the tokenizers' Rust code raises its panics as a kind of BaseException
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if type(error).__name__ in ("OutOfMemoryError", "StopIteration"):
            raise
        raise CloraError(f"{where}: {library_reason(error)}") from error


class _Cut(logging.Filter):
    """Cuts a record's message and takes out tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except Exception as error:  # a library's own faulty format
            text = reason(error)
        text = without_tokens(text[: 100 * MAX_LOGGED])
        more = len(text) - MAX_LOGGED
        kept = "\n".join(escaped(line) for line in text[:MAX_LOGGED].splitlines())
        record.msg, record.args = kept + (f"... ({more:,} more characters)" if more > 0 else ""), ()
        return True


_CUT = _Cut()


def _cut_logs() -> None:
    """Cut the messages of the libraries' loggers; they make their handlers when they are imported."""
    for library in LIBRARIES:
        for handler in logging.getLogger(library).handlers:
            handler.addFilter(_CUT)  # does nothing the second time

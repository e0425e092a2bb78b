"""Texts that are never repeated: a server may send the key back in any field, and in other spellings than it came."""

from __future__ import annotations

import logging
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from html import unescape
from urllib.parse import unquote

from attrs import field, frozen

#: what stands for a text that holds a secret in a spelling that cannot simply be cut out
WITHHELD = "what it says holds the key and is not repeated"
#: a shorter key is a placeholder, such as `ollama` or `EMPTY`, that a server without keys takes: any text may hold it
SHORTEST = 8
#: letters and digits in a row that give a part of a secret away
PART = 12
#: how often a text may have been escaped
ESCAPED = 3
#: the libraries that see the request, and log what a server sends
LIBRARIES = ("urllib3", "requests", "charset_normalizer")

_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")


def _parts(secrets: Iterable[str]) -> frozenset[str]:
    """Every run of PART letters of the secrets as they are, in hexadecimal, and in base64 at each of its offsets."""
    found: set[str] = set()
    for secret in secrets:
        if len(secret) < SHORTEST:
            continue
        raw = secret.encode("utf-8", "surrogatepass")
        spelled = [secret, raw.hex()]
        for offset in range(3):  # the first and last signs depend on what stands beside the secret
            whole = b64encode(b"\0" * offset + raw).decode()
            spelled.append(whole[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6])
        for text in map(_folded, spelled):
            size = min(PART, len(text)) or 1
            found |= {text[i : i + size] for i in range(len(text) - size + 1)}
    return frozenset(part for part in found if len(part) >= SHORTEST)


@frozen
class Secrets:
    """The key and a proxy's password, to be kept out of messages, logs and captions."""

    texts: tuple[str, ...] = field(default=(), repr=False)
    _parts: frozenset[str] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_parts", _parts(self.texts))

    def inside(self, text: str) -> bool:
        """True where the text holds a secret, or a telling part of one.

        Found in capitals, between blanks and signs, behind escapes of JSON, HTML and URLs, in hexadecimal and base64.
        """
        if any(len(secret) >= SHORTEST and secret in text for secret in self.texts):
            return True
        sizes = {len(part) for part in self._parts}
        return any(
            folded[i : i + size] in self._parts
            for folded in _readings(text)
            for size in sizes
            for i in range(len(folded) - size + 1)
        )

    def hidden(self, text: str) -> str:
        """The text with `...` for the secrets in it; another text where they are in it in another spelling."""
        for secret in self.texts:
            text = (
                text.replace(secret, "...")
                if len(secret) >= SHORTEST
                else re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "...", text)
            )
        return WITHHELD if self.inside(text) else text

    @contextmanager
    def kept_out_of_logs(self) -> Iterator[None]:
        """What the libraries log meanwhile is rid of secrets; urllib3 logs headers that it cannot read."""
        names = [name for name in (*logging.root.manager.loggerDict, *LIBRARIES) if name.split(".")[0] in LIBRARIES]
        loggers = [logging.getLogger(name) for name in dict.fromkeys(names)]
        for logger in loggers:
            logger.addFilter(self._clean)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(self._clean)

    def _clean(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self.hidden(record.getMessage()), ()
        record.exc_info = record.exc_text = None  # the exception's text is the server's too
        return True


def _readings(text: str) -> Iterator[str]:
    """The text's letters and digits, as it stands and once its escapes are undone."""
    for _ in range(ESCAPED):
        yield _folded(text)
        plain = unquote(_ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), text))
        with suppress(ValueError):  # a reference of more digits than Python reads stands for no letter
            plain = unescape(plain)
        if plain == text:
            return
        text = plain
    yield _folded(text)


def _folded(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.casefold())

"""The captioner `openai`: any endpoint that speaks OpenAI's chat completions with pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from attrs import define, field, frozen
from attrs.validators import optional

from clora.api import CloraError, TokensUsed, between, shown
from clora_captions.http import Endpoint
from clora_captions.parts import data_url, parts
from clora_captions.secret import Secrets

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_KEY = re.compile(r"((sk|pk|gsk|xai|hf|key)[-_]|AIza)[A-Za-z0-9_-]{20,}")


#: characters of a model's name, of an address, and of a key
LONGEST_NAME, LONGEST_URL, LONGEST_KEY = 200, 2000, 4000
#: tokens that one answer can count: what is more is no count
MOST_TOKENS = 10**9


@define
class _Used:
    asked: int = 0
    answered: int = 0


def _variable(instance: object, attribute: Any, value: str | None) -> None:
    """The sentence does not quote the value: it may be the key."""
    if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
        raise ValueError(
            f"'{attribute.name}' must name an environment variable, such as OPENAI_API_KEY; a key itself never "
            "stands in a recipe"
        )


def _no_key(instance: object, attribute: Any, value: str) -> None:
    if not value.strip() or len(value) > LONGEST_NAME or not value.isprintable():
        raise ValueError(f"'{attribute.name}' must be one line of at most {LONGEST_NAME} characters")
    if _KEY.fullmatch(value):
        raise ValueError(f"'{attribute.name}' looks like a key, which never stands in a recipe; see key_from")


def _address(instance: object, attribute: Any, value: str) -> None:
    try:
        parts = urlsplit(value if len(value) <= LONGEST_URL and value.isprintable() else "")
        host, secret = parts.hostname, parts.password or parts.username or parts.query or parts.fragment
        _ = parts.port
    except ValueError:
        host, secret, parts = None, None, None
    if parts is None or not host or parts.scheme not in ("http", "https"):
        raise ValueError(f"'{attribute.name}' must be an address such as https://api.openai.com/v1")
    if secret:
        raise ValueError(f"'{attribute.name}' may hold no user, password or query; a key is named by key_from")
    if parts.scheme == "http" and host not in _LOCAL:
        raise ValueError(f"'{attribute.name}' must begin with https:// for pictures and key would travel in the open")


@frozen
class OpenAi:
    """Asks a model behind an endpoint with OpenAI's chat interface."""

    model: str = field(validator=_no_key)  # the name that the server knows it by
    #: of OpenAI, vLLM, Ollama, ...; https, or http on this machine
    url: str = field(default="https://api.openai.com/v1", validator=_address)
    #: the environment variable that holds the key; null sends none
    key_from: str | None = field(default="OPENAI_API_KEY", validator=_variable)
    #: pixels of the longer side of a picture, which goes out as JPEG
    size: int = field(default=768, validator=between(64, 8192))
    #: seconds that a try may take, from the look-up of the name to the last byte
    timeout: float = field(default=120.0, validator=between(0.01, 3600.0))
    retries: int = field(default=4, validator=between(0, 20))  # how often a server in trouble is asked again
    #: of an answer; null: the server's own limit
    max_tokens: int | None = field(default=None, validator=optional(between(16, 1_000_000)))
    temperature: float | None = field(default=None, validator=optional(between(0.0, 2.0)))  # null: the server's own
    _used: _Used = field(factory=_Used, init=False, repr=False, eq=False)

    def name(self) -> str:
        """The model and whose it is."""
        return f"{self.model} at {shown(urlsplit(self.url).netloc, 100)}"

    def ready(self) -> Iterable[str]:
        """A key that is not set, or no key."""
        try:
            self._key()
        except CloraError as error:
            yield str(error)

    def caption(self, request: str, pairs: Sequence[tuple[Path, Path]]) -> str:
        """The model's answer. Raises CloraError where there is none, PictureError for a picture."""
        key = self._key()
        content = [self._part(part) for part in parts(request, pairs)]
        question = {"model": self.model, "messages": [{"role": "user", "content": content}]}
        options = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        url = self.url.rstrip("/")
        secrets = Secrets((*(() if key is None else (key,)), *_proxy_passwords()))
        endpoint = Endpoint(
            url if url.endswith("/chat/completions") else f"{url}/chat/completions",
            {"User-Agent": "clora", "Content-Type": "application/json"}
            | ({} if key is None else {"Authorization": f"Bearer {key}"}),
            self.timeout,
            self.retries,
            secrets,
        )
        answer = endpoint.ask(question | {name: value for name, value in options.items() if value is not None})
        self._count(answer)
        text = self._text(answer)
        if secrets.inside(text):
            raise CloraError(f"{self.name()}: its answer holds the key and is not kept")
        return text

    def tokens_used(self) -> TokensUsed:
        """The sums of what the endpoint said; zero where it says nothing."""
        return TokensUsed(self._used.asked, self._used.answered)

    def _key(self) -> str | None:
        if self.key_from is None:
            return None
        key = os.environ.get(self.key_from, "").strip()
        if not key:
            raise CloraError(f"the environment variable {self.key_from} is not set; `export {self.key_from}=...`")
        if not (key.isascii() and key.isprintable() and " " not in key and len(key) <= LONGEST_KEY):
            raise CloraError(f"what the environment variable {self.key_from} holds is no key")
        if Secrets((key,)).inside(f"{self.model} {self.url}"):
            raise CloraError(
                f"`model` or `url` holds the key that {self.key_from} names; a key never stands in a recipe"
            )
        return key

    def _part(self, part: str | Path) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        return {"type": "image_url", "image_url": {"url": data_url(part, self.size)}}

    def _count(self, answer: Any) -> None:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        for name, key in (("asked", "prompt_tokens"), ("answered", "completion_tokens")):
            count = usage.get(key) if isinstance(usage, dict) else None
            if isinstance(count, int) and not isinstance(count, bool) and 0 < count <= MOST_TOKENS:
                setattr(self._used, name, getattr(self._used, name) + count)

    def _text(self, answer: Any) -> str:
        """The words of the first choice; a refusal in a field of its own is an answer too."""
        choices = answer.get("choices") if isinstance(answer, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise CloraError(f"{self.name()}: its answer holds no choices[0].message.content")
        text = message.get("content") or message.get("refusal") or ""
        if isinstance(text, list):
            pieces = [part.get("text", "") if isinstance(part, dict) else None for part in text]
            words = [piece for piece in pieces if isinstance(piece, str)]
            text = "".join(words) if len(words) == len(pieces) else None
        if not isinstance(text, str):
            raise CloraError(f"{self.name()}: the content of its answer is no text")
        if choice.get("finish_reason") == "length":
            raise CloraError(f"{self.name()}: its answer breaks off at a limit of tokens; raise max_tokens")
        if choice.get("finish_reason") == "content_filter":
            raise CloraError(f"{self.name()}: its content filter kept the answer back")
        return text


def _proxy_passwords() -> Iterable[str]:
    """What the environment's proxies are told, and may send back, as the server may the key."""
    for proxy in getproxies().values():
        with suppress(ValueError):  # no address; the transport tells
            if password := urlsplit(proxy).password:
                yield unquote(password)

"""One JSON question over HTTP and its answer: tried again where that helps, bounded, never led elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from time import sleep
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from attrs import field, frozen

from clora.api import CloraError

MAX_ANSWER = 4 << 20
#: answers that another try may change: too many requests, and servers in trouble
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT = 120.0  # seconds


@frozen
class Endpoint:
    """Where to ask, with which headers; `secret` is never in what is told."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    timeout: float  # seconds for one answer
    retries: int
    secret: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """The endpoint in messages: a path may hold what is nobody's business."""
        return urlsplit(self.url).netloc

    def ask(self, question: Mapping[str, Any]) -> Any:
        """The answer's JSON. Raises CloraError with the reason once no try is left, or where none would help."""
        data = json.dumps(question).encode()
        for tried in range(self.retries + 1):
            try:
                raw = self._post(data)
            except _PassingError as error:
                wait = error.wait if error.wait is not None else min(2.0**tried, LONGEST_WAIT)
                if tried == self.retries or wait > LONGEST_WAIT:
                    asks = f"; it asks to wait {wait:.0f} s" if error.wait is not None else ""
                    tries = "1 try" if tried == 0 else f"{tried + 1} tries"
                    raise CloraError(f"{self.host}: {error} after {tries}{asks}") from None
                sleep(wait)
                continue
            try:
                return json.loads(raw)
            except (ValueError, RecursionError):
                raise CloraError(f"{self.host} answers what is no JSON: {self._shown(raw)}") from None
        raise AssertionError("the last try returns or raises")

    def _post(self, data: bytes) -> bytes:
        request = Request(self.url, data, {"Content-Type": "application/json", **self.headers}, method="POST")
        deadline = time.monotonic() + self.timeout
        try:
            with build_opener(_NoRedirects).open(request, timeout=self.timeout) as response:
                return self._body(response, deadline)
        except HTTPError as error:
            with error:
                self._refused(error)
        except TimeoutError:
            raise _PassingError(f"no answer within {self.timeout:g} s") from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _PassingError(f"no answer within {self.timeout:g} s") from None
            raise _PassingError(f"cannot be reached: {error.reason}") from None
        except (HTTPException, OSError) as error:
            raise _PassingError(f"the connection broke: {type(error).__name__}") from None
        raise AssertionError("a refusal raises")

    def _body(self, response: HTTPResponse, deadline: float) -> bytes:
        """The whole answer, given up where it is too long in either sense."""
        read = bytearray()
        while chunk := response.read1(1 << 16):
            read += chunk
            if len(read) > MAX_ANSWER:
                raise CloraError(f"{self.host}: its answer is larger than {MAX_ANSWER >> 20} MB")
            if time.monotonic() > deadline:
                raise _PassingError(f"no whole answer within {self.timeout:g} s")
        if response.length:  # what the header promised and did not come
            raise _PassingError("the connection broke in the middle of an answer")
        return bytes(read)

    def _refused(self, error: HTTPError) -> None:
        """Raise what an answer that is no success means."""
        if 300 <= error.code < 400:
            where = urlsplit(error.headers.get("Location", "")).netloc or "another address"
            raise CloraError(f"{self.host} sends us on to {where}, where no key is taken; give that address as url")
        if error.code in (401, 403):
            raise CloraError(f"{self.host} refuses the key, or what it was asked for with it ({error.code})")
        said = _message(error.read(1 << 16))
        sentence = f"it answers {error.code}" + (f": {self._shown(said)}" if said else "")
        if error.code in PASSING and b"insufficient_quota" not in said:
            raise _PassingError(sentence, _retry_after(error.headers.get("Retry-After")))
        raise CloraError(f"{self.host}: {sentence}")

    def _shown(self, raw: bytes) -> str:
        """The beginning of an answer on one line, without what is secret."""
        text = " ".join(raw[:4096].decode("utf-8", "replace").split())
        if self.secret:
            text = text.replace(self.secret, "...")
        text = "".join(letter for letter in text if letter.isprintable())
        return text[:300] + ("..." if len(text) > 300 else "")


class _PassingError(Exception):
    """A failure that another try may not meet; `wait` is how many seconds the server asks for."""

    def __init__(self, sentence: str, wait: float | None = None) -> None:
        super().__init__(sentence)
        self.wait = wait


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an answer like any other: following it would carry the key to whoever is named there."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _message(raw: bytes) -> bytes:
    """The sentence in an error's body, in the places where servers put it; else the body as it is."""
    try:
        told = json.loads(raw)
        error = told.get("error", told)
        found = (
            error if isinstance(error, str) else " ".join(str(error[k]) for k in ("message", "code") if error.get(k))
        )
        return found.encode("utf-8", "replace") or raw
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return raw


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait, from a number or a date; None where the header says neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None  # "nan" is a float too

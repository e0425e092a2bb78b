"""One JSON question over HTTP and its answer: tried again where that helps, bounded, never led elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import uniform
from time import sleep
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import field, frozen

from clora.api import CloraError, parse_json, quoted, reason, shown
from clora_captions.secret import Secrets

if TYPE_CHECKING:
    from clora_captions.transport import Answer, Failure

#: answers that another try may change: too many requests, and servers in trouble
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT = 120.0  # seconds


@frozen
class Refusal:
    """Why a try gave no answer, whether another may, and how many seconds the server asks to wait before it."""

    sentence: str
    again: bool = False
    wait: float | None = None


@frozen
class Endpoint:
    """Where to ask, with which headers; what is in `secrets` is never told."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    timeout: float  # seconds for one try, from the look-up of the name to the last byte
    retries: int
    secrets: Secrets = field(factory=Secrets, repr=False)

    @property
    def host(self) -> str:
        """The endpoint in messages: a path may hold what is nobody's business."""
        return shown(urlsplit(self.url).netloc, 100)

    def ask(self, question: Mapping[str, Any]) -> Any:
        """The answer's JSON. Raises CloraError once no try is left, or where none would help.

        Every message has the host, which attempt of how many it was, and the reason.
        """
        from clora_captions.transport import Answer, post

        data = json.dumps(question).encode()
        for tried in range(self.retries + 1):
            attempt = f"{self.host}, attempt {tried + 1} of {self.retries + 1}"
            # nothing is raised in there: an exception of requests has the key in the request that it carries along
            outcome = post(self.url, self.headers, data, self.timeout, self.secrets)
            if isinstance(outcome, Answer) and 200 <= outcome.status < 300:
                return self._value(outcome.body, attempt)
            refusal = self._refusal(outcome)
            # half of it by chance: many that failed together do not come back together
            wait = min(2.0**tried, LONGEST_WAIT) * uniform(0.5, 1.0) if refusal.wait is None else refusal.wait
            if not refusal.again or tried == self.retries or wait > LONGEST_WAIT:
                asks = f"; it asks to wait at least {wait:.0f} s" if refusal.again and refusal.wait is not None else ""
                raise CloraError(f"{attempt}: {refusal.sentence}{asks}")
            sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _value(self, body: bytes, attempt: str) -> Any:
        wrong = ""
        try:
            return parse_json(body.decode("utf-8-sig"), f"{attempt}: its answer")
        except UnicodeDecodeError:
            wrong = f"{attempt}: its answer is no text in UTF-8"
        except CloraError as error:
            wrong = str(error)
        raise CloraError(f"{wrong}; it begins {quoted(self.secrets.hidden(_text(body[:4096])))}")

    def _refusal(self, outcome: Answer | Failure) -> Refusal:
        """What a failure, or an answer that is no success, means."""
        from clora_captions.transport import Failure

        if isinstance(outcome, Failure):
            return Refusal(outcome.sentence + self._told(outcome.detail), outcome.again)
        if 300 <= outcome.status < 400:
            return Refusal(f"it sends us on to {self._elsewhere(outcome)}, where no key is taken; see `url`")
        if outcome.status in (401, 403):
            return Refusal(f"it refuses the key, or what it was asked for with it ({outcome.status})")
        said = _message(outcome.body)
        broken = f" (the rest did not come: {outcome.broken})" if outcome.broken else ""
        again = outcome.status in PASSING and "insufficient_quota" not in said
        return Refusal(f"it answers {outcome.status}{self._told(said)}{broken}", again, _retry_after(outcome))

    def _told(self, said: str) -> str:
        """What a server or a library said, as the end of a sentence: on one line, cut, without what is secret."""
        said = " ".join(said.split())
        return f": {reason(self.secrets.hidden(said))}" if said else ""

    def _elsewhere(self, answer: Answer) -> str:
        """The host that a redirect names."""
        try:
            host = urlsplit(_header(answer, "location")).netloc.rpartition("@")[2]
        except ValueError:
            return "an address that cannot be read"
        return quoted(self.secrets.hidden(host)) if host else "another address"


def _header(answer: Answer, name: str) -> str:
    return next((value for key, value in answer.headers.items() if key.lower() == name), "")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _message(raw: bytes) -> str:
    """The sentence in an error's body, in the places where servers put it; else the body as it is."""
    text = _text(raw)
    try:
        told = parse_json(text, "")
    except CloraError:
        return text
    error = told.get("error", told) if isinstance(told, dict) else told
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return text
    return " ".join(str(error[key]) for key in ("message", "code") if error.get(key)) or text


def _retry_after(answer: Answer) -> float | None:
    """Seconds to wait, from a number or a date; None where the header says neither."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    header = _header(answer, "retry-after")
    try:
        return Retry().parse_retry_after(header) if header else None
    except (InvalidHeader, ValueError, OverflowError, TypeError):  # dates of the year 10^9, and thousands of digits
        return None

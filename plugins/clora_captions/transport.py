"""One POST through requests, with one deadline for all of it and one limit for its answer; imports requests."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, field, frozen
from requests import Request, Response, exceptions as failures
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.exceptions import LocationValueError, NewConnectionError

from clora_captions.secret import Secrets

MAX_ANSWER = 4 << 20
MAX_ERROR = 1 << 16
#: bytes on the wire: the answer, its headers, and what stands between the chunks
MAX_WIRE = MAX_ANSWER + (1 << 20)
#: where requests' and OpenSSL's users name the certificates that they trust
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_ADDRESSES = (failures.InvalidURL, failures.InvalidSchema, failures.MissingSchema, LocationValueError, UnicodeError)
#: a failure's own text is looked at so far
LONGEST_DETAIL = 100_000


@frozen
class Answer:
    """A server's answer; `broken` says why the body of an error did not come whole."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    broken: str = ""


@frozen
class Failure:
    """Why there is no answer: a sentence, what a library or the server says of it, and whether another try may help."""

    sentence: str
    detail: str = ""
    again: bool = True


class _TooLargeError(Exception):
    """More came than MAX_WIRE or MAX_ANSWER."""


def post(url: str, headers: Mapping[str, str], data: bytes, timeout: float, secrets: Secrets) -> Answer | Failure:
    """What became of the question within `timeout` seconds, in which all of it has to happen.

    A socket's own limit is for one read, and none is for the look-up of a name: so a thread of its own asks, which is
    waited for so long and then cut off. A redirect is an answer like any other; ~/.netrc is not read.
    """
    exchange = _Exchange()
    # the socket's limit is the longer one, so that it is always the deadline that is told
    words = (exchange, url, headers, data, timeout + 1.0, secrets)
    Thread(target=_ask, args=words, name="clora-question", daemon=True).start()
    try:
        return exchange.outcome(timeout)
    finally:
        exchange.cut()


class _Exchange:
    """What the asking thread has reached, and the sockets to cut it off by."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._over = False
        self._sockets: list[socket.socket] = []
        self._done = Event()
        self._outcome: Answer | Failure | None = None
        self.head: Answer | None = None

    def outcome(self, timeout: float) -> Answer | Failure:
        """Wait for the end; an error whose text does not come is told by its status."""
        late = f"no whole answer within {timeout:g} s"
        if self._done.wait(timeout) and self._outcome is not None:
            return self._outcome
        if self.head is None:
            return Failure(f"no answer within {timeout:g} s")
        return Failure(late) if _good(self.head.status) else evolve(self.head, broken=late)

    def finish(self, outcome: Answer | Failure) -> None:
        """Called once, by the asking thread."""
        self._outcome = outcome
        self._done.set()

    def watch(self, opened: socket.socket) -> None:
        """Keep a second handle: TLS takes the first one over before its handshake is done."""
        handle = socket.fromfd(opened.fileno(), opened.family, opened.type, opened.proto)
        with self._lock:
            self._sockets.append(handle)
            over = self._over
        if over:
            self.cut()

    def cut(self) -> None:
        """End every connection, whatever is being read from it or written to it."""
        with self._lock:
            self._over = True
            sockets, self._sockets = self._sockets, []
        for handle in sockets:
            with suppress(OSError):  # it may have ended by itself
                handle.shutdown(socket.SHUT_RDWR)
            handle.close()


def _ask(
    exchange: _Exchange, url: str, headers: Mapping[str, str], data: bytes, timeout: float, secrets: Secrets
) -> None:
    outcome: Answer | Failure = Failure("the connection broke")
    try:
        with secrets.kept_out_of_logs(), closing(_Adapter(exchange)) as adapter:
            # an adapter sends what it is given; a session would add ~/.netrc and cookies, and read a redirect's body
            request = Request("POST", url, {**headers, "Accept-Encoding": "identity"}, data=data).prepare()
            sent = adapter.send(request, stream=True, timeout=timeout, verify=_certificates(), proxies=_proxies(url))
            with closing(sent) as response:
                exchange.head = Answer(response.status_code, dict(response.headers))
                outcome = _whole(exchange.head, response)
    except Exception as error:  # requests lets through what urllib3, http.client, idna and ssl make of nonsense
        outcome = _failure(error)
    finally:
        exchange.finish(outcome)


def _certificates() -> str | bool:
    return next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), True)


def _proxies(url: str) -> dict[str, str]:
    """The environment's; none for http, which is for this machine alone."""
    return dict(get_environ_proxies(url)) if urlsplit(url).scheme == "https" else {}


def _good(status: int) -> bool:
    return 200 <= status < 300


def _whole(head: Answer, response: Response) -> Answer | Failure:
    """The answer with its body: whole where it is a good one, as much as came and is wanted of an error."""
    if 300 <= head.status < 400 or head.status in (401, 403):
        return head  # nothing in it would be told
    most = MAX_ANSWER if _good(head.status) else MAX_ERROR
    body = bytearray()
    try:
        for chunk in response.iter_content(1 << 16):
            body += chunk
            if len(body) > most:
                if _good(head.status):
                    raise _TooLargeError
                break
    except Exception as error:  # as in _ask
        failure = _failure(error)
        return failure if _good(head.status) else evolve(head, body=bytes(body), broken=failure.sentence)
    return evolve(head, body=bytes(body[:most]))


def _failure(error: Exception) -> Failure:
    """An exception of the transport in plain words."""
    cause = _innermost(error)
    detail = str(getattr(cause, "strerror", None) or cause)[:LONGEST_DETAIL] or type(cause).__name__
    if isinstance(error, _TooLargeError):
        return Failure(f"its answer is larger than {MAX_ANSWER >> 20} MB", again=False)
    if isinstance(error, failures.InvalidHeader):
        return Failure("it answers with headers that contradict themselves", detail)
    if isinstance(error, _ADDRESSES):
        return Failure("its address, or a proxy's in the environment, cannot be used", again=False)
    if isinstance(error, failures.ContentDecodingError):
        return Failure("its answer cannot be unpacked", detail)
    if isinstance(error, failures.ProxyError):
        return Failure("the proxy in the environment lets nothing through", detail)
    if isinstance(error, failures.SSLError):
        return Failure("no safe connection", detail, again="CERTIFICATE_VERIFY_FAILED" not in detail)
    if type(error) is OSError:  # requests finds no certificates where CERTIFICATES say
        return Failure("cannot be asked", detail, again=False)
    if any(isinstance(link, NewConnectionError) for link in _chain(error)):
        return Failure("cannot be reached", detail)
    return Failure("the connection broke", detail)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those inside it: as their reason, their argument, or their cause."""
    seen: list[BaseException] = []
    link: Any = error
    while isinstance(link, BaseException) and link not in seen and len(seen) < 20:
        seen.append(link)
        yield link
        inside = [getattr(link, "reason", None), link.__cause__, *link.args]
        link = next((found for found in inside if isinstance(found, BaseException)), None)


def _innermost(error: BaseException) -> BaseException:
    return list(_chain(error))[-1]


class _Adapter(HTTPAdapter):
    """requests' adapter with connections that can be cut off, and answers that cannot be endless."""

    def __init__(self, exchange: _Exchange) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)
        self._exchange = exchange

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _watched(pool.ConnectionCls, self._exchange)
        return pool


def _watched(base: Any, exchange: _Exchange) -> Any:
    """A connection of urllib3's, plain, through TLS or through a proxy, that tells of its socket."""

    class Watched(base):
        response_class = _BoundedResponse

        def _new_conn(self) -> socket.socket:
            opened = super()._new_conn()
            exchange.watch(opened)
            return opened

    return Watched


class _BoundedResponse(HTTPResponse):
    """Gives an answer up whose bytes, headers and lines between chunks included, are more than MAX_WIRE."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = BufferedReader(_Counted(self.fp))


class _Counted(RawIOBase):
    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._left = MAX_WIRE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto1(buffer)
        self._left -= count
        if self._left < 0:
            raise _TooLargeError
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

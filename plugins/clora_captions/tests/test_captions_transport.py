"""The captioner `openai` against servers that misbehave: one message with host and attempt, one deadline, one limit."""

from __future__ import annotations

import gzip
import re
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from clora_captions import http, transport
from clora_captions.openai import OpenAi
from clora_captions.parts import data_url
from hostile_server import Answer, HostileServer, answer, drips, floods, resets, silent
from PIL import Image

from clora.api import CloraError

KEY = "sk-verysecretverysecretverysecret"
OOPS = b"HTTP/1.1 500 Oops\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = b'{"choices": [{"message": {"content": "draw it in ink"}}], "usage": {"prompt_tokens": 7}}'
LINE = b"X: " + b"a" * 60_000 + b"\r\n"


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    """Two pictures, a key, an environment without proxies, and waits that take no time."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", *transport.CERTIFICATES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setattr(http, "sleep", lambda seconds: None)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    data_url(tmp_path / "a.png", 64)  # the first picture imports torch: not in a server's time
    return [(tmp_path / "a.png", tmp_path / "a.png")]


def told(url: str, pairs, place: str = "", **keys) -> str:
    """What a caption that fails is told with, without the place."""
    made = OpenAi(**{"model": "m", "url": url, "key_from": "MY_KEY", "size": 64, "retries": 1, "timeout": 0.3} | keys)
    with pytest.raises(CloraError) as error:
        made.caption("describe it", pairs)
    said = str(error.value)
    assert (error.value.__cause__, error.value.__context__) == (None, None)
    assert KEY not in said
    assert said.isprintable()
    assert len(said) < 400
    head = re.match(r"(\S+), attempt (\d) of 2: ", said)
    assert head is not None, said
    assert head[1] == (place or head[1])
    return f"{head[2]}: {said[head.end() :]}"


def asking_threads() -> int:
    return sum(thread.name == "clora-question" for thread in threading.enumerate())


def all_threads_end() -> bool:
    """True once no thread asks any longer; a server's own end would come later than this gives up."""
    end = time.monotonic() + 2.0
    while asking_threads() and time.monotonic() < end:
        time.sleep(0.01)
    return asking_threads() == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        # while the reason of an error is read
        (resets(OOPS + b"Content-Length: 100\r\n\r\nab"), "2: it answers 500(: ab)? .the rest did not come: the conn"),
        (OOPS + b"Content-Length: 100\r\n\r\nab", "2: it answers 500(: ab)? .the rest did not come: the connection b"),
        (OOPS + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", "2: it answers 500 .the rest did not come: the conn"),
        (answer(500, b"abc", b"Content-Encoding: gzip\r\n"), "2: it answers 500 .the rest did not come: its answer ca"),
        # before, and while a good answer is read
        (resets(), "2: the connection broke: "),
        (b"", "2: the connection broke: Remote end closed connection without response"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "2: the connection broke: SSH-2.0-OpenSSH_9.6"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "2: the connection broke: HTTP/1.1 abc OK"),
        (b"HTTP/1.1 99999999 OK\r\n\r\n", "2: the connection broke: HTTP/1.1 99999999 OK"),
        (b"\x1b[31m\xe2\x80\xae\r\n\r\n", r"2: the connection broke: \\x1b\[31m"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "2: the connection broke: got more than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n", "2: the connection broke: got more than 100 headers"),
        (CHUNKED + b"5\r\nab", "2: the connection broke: IncompleteRead"),
        (CHUNKED + b"-5\r\nab", "2: the connection broke: "),
        (CHUNKED + b"f" * 5000 + b"\r\nab", "2: "),
        (resets(CHUNKED + b"2\r\nab\r\n"), "2: the connection broke: "),
        (answer(200, b"abc", b"Content-Encoding: gzip\r\n"), "2: its answer cannot be unpacked: "),
        (answer(200, b"", b"Content-Length: 7\r\n"), "2: it answers with headers that contradict themselves: "),
        (answer(200, b"\xff\xfe\x00", b""), r"1: its answer is no text in UTF-8; it begins '\ufffd\ufffd\\x00'"),
        # sizes
        (answer(200, gzip.compress(b" " * (16 << 20)), b"Content-Encoding: gzip\r\n"), "1: its answer is larger"),
        (floods(b"HTTP/1.1 200 OK\r\n", LINE, 9 << 20), "1: its answer is larger than 4 MB"),
        (floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, 9 << 20), "1: its answer is larger than 4 MB"),
        (floods(CHUNKED + b"0\r\n", LINE, 9 << 20), "1: its answer is larger than 4 MB"),
        (floods(CHUNKED, b"1;" + b"a" * 60_000 + b"\r\na\r\n", 9 << 20), "[12]: "),
        (floods(answer(400, b"")[:-5] + b"9999999\r\n\r\n", b"no ink " * 999, 9 << 20), "1: it answers 400: no ink "),
        # redirects
        (answer(302, b"", b"Location: http://[::1/x\r\n"), "1: it sends us on to an address that cannot be read, "),
        (answer(307, b"", b"Location: //a:99999999/x\r\n"), "1: it sends us on to 'a:99999999', where no key is"),
        (answer(308, b"", b"Location: http://u:p@\xff\x00\x1b/\r\n"), r"1: it sends us on to '\xff\\x00\\x1b', where "),
        (answer(301, b"", b"Location: http://" + b"a" * 5000 + b"\r\n"), r"1: it sends us on to 'a{60}' \(4,940 more"),
        (answer(303, b"no", b""), "1: it sends us on to another address, where no key is taken"),
        # numbers
        (answer(429, b"", b"Retry-After: " + b"9" * 5000 + b"\r\n"), "2: it answers 429$"),
        (answer(429, b"", b"Retry-After: Mon, 99 Foo 99999999 99:99:99\r\n"), "2: it answers 429$"),
        (answer(503, b"", b"Retry-After: Fri, 01 Jan 9999 00:00:00 GMT\r\n"), "1: it answers 503; it asks to wait at"),
        (answer(200, GOOD.replace(b"7", b"1" + b"0" * 400)), "1: its answer: is no JSON that can be read: an integer "),
        (answer(200, GOOD.replace(b"7", b"NaN")), "1: its answer: is no JSON that can be read: NaN"),
        (answer(400, b"[" * 50_000), r"1: it answers 400: \[{160}\.\.\.$"),
        (answer(400, b'{"error": {"message": {"a": "\\u202e"}}}'), "1: it answers 400: "),
        (answer(429, b'{"error": {"code": "insufficient_quota"}}'), "1: it answers 429: insufficient_quota$"),
    ],
)  # fmt: skip
def test_captions_transport_tells_every_failure_with_host_and_attempt(given: Answer, said: str, pairs):
    with HostileServer([given]) as server:
        found = told(server.url, pairs, server.place, timeout=4.0)
        assert re.match(said, found), found
        assert len(server.questions) == int(found[0])
    assert all_threads_end()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (drips(b"H", b"x"), "2: no answer within 0.3 s"),
        (drips(b"HTTP/1.1 200 OK\r\nX: "), "2: no answer within 0.3 s"),
        (drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "2: no answer within 0.3 s"),
        (drips(b"HTTP/1.1 200 OK\r\n\r\n"), "2: no whole answer within 0.3 s"),
        (drips(CHUNKED, b"1;a\r\n \r\n"), "2: no whole answer within 0.3 s"),
        (drips(CHUNKED + b"1;"), "2: no whole answer within 0.3 s"),
        (drips(CHUNKED + b"0\r\n", b"a: b\r\n"), "2: no whole answer within 0.3 s"),
        (silent(b""), "2: no answer within 0.3 s"),
        (silent(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"), "2: no whole answer within 0.3 s"),
        (
            drips(OOPS + b"Content-Length: 999\r\n\r\nab"),
            "2: it answers 500 (the rest did not come: no whole answer wi",
        ),
        (silent(OOPS + b"Content-Length: 9\r\n\r\nab"), "2: it answers 500 (the rest did not come: no whole answer wi"),
        (drips(b"HTTP/1.1 400 No\r\n\r\n"), "1: it answers 400 (the rest did not come: no whole answer within 0.3 s)"),
    ],
)
def test_captions_transport_has_one_deadline_for_all_of_an_answer(given: Answer, said: str, pairs):
    with HostileServer([given]) as server:
        assert told(server.url, pairs, server.place).startswith(said)
        assert server.finished == 0  # nobody waited for the server's own end
    assert all_threads_end()


@pytest.mark.parametrize("given", [drips(b"\x16\x03\x03\x40\x00"), drips(b"\x16\x03\x03", b"", 0.1)])
def test_captions_transport_has_the_same_deadline_for_a_handshake(given: Answer, pairs):
    with HostileServer([given], listens=False) as server:
        assert told(server.url.replace("http:", "https:"), pairs, server.place) == "2: no answer within 0.3 s"
        assert server.finished == 0
    assert all_threads_end()


def test_captions_transport_has_the_same_deadline_for_the_look_up_of_a_name(pairs, monkeypatch):
    over = threading.Event()

    def never(*words, **more):
        over.wait(5.0)
        raise socket.gaierror(-3, "nobody knows")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    assert told("https://example.com/v1", pairs, "example.com") == "2: no answer within 0.3 s"
    assert asking_threads() == 2  # nothing ends a look-up but the system; nobody waits for it
    over.set()
    assert all_threads_end()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://127.0.0.1:{port}/v1", "2: no safe connection: "),
        ("https://nobody.example/v1", "2: cannot be reached: nobody knows"),
        (f"https://{'a' * 64}.example/v1", "1: its address, or a proxy's in the environment, cannot be used"),
        ("https://a..example/v1", "1: its address, or a proxy's in the environment, cannot be used"),
        ("https://\u2100.example/v1", "1: its address, or a proxy's in the environment, cannot be used"),
    ],
)
def test_captions_transport_tells_addresses_that_lead_nowhere(url, said, pairs, monkeypatch):
    real = socket.getaddrinfo

    def known(host, *words, **more):
        if str(host).startswith("127."):
            return real(host, *words, **more)
        raise socket.gaierror(-2, "nobody knows")

    monkeypatch.setattr(socket, "getaddrinfo", known)
    with HostileServer([answer(200, GOOD)], listens=False) as server:
        try:
            found = told(url.replace("{port}", server.place.split(":")[1]), pairs, timeout=4.0)
        except ValueError as error:  # refused by the recipe already
            assert "'url' must be an address" in str(error)  # noqa: PT017
        else:
            assert found.startswith(said), found


def test_captions_transport_reads_no_netrc_and_keeps_local_questions_from_proxies(pairs, tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password netrcpassword\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    with HostileServer([answer(200, GOOD)]) as proxy, HostileServer([answer(200, GOOD)]) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for key_from, sent in (("MY_KEY", [f"Bearer {KEY}".encode()]), (None, [])):
            made = OpenAi("m", server.url, key_from, size=64)
            assert made.caption("describe it", pairs) == "draw it in ink"
            assert re.findall(rb"(?im)^authorization: *(.*)\r$", server.questions[-1]) == sent
        assert proxy.questions == []


def test_captions_transport_goes_through_the_environments_proxy_and_hides_its_password(pairs, monkeypatch):
    def echoes(connection: socket.socket, question: bytes) -> None:
        sent = re.findall(rb"(?i)proxy-authorization: *(.*)\r", question)[0]
        connection.sendall(b"HTTP/1.1 407 you sent " + sent + b" or proxypassword\r\nX: " + sent + b"\r\n\r\n" + sent)

    with HostileServer([echoes]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://somebody:proxypassword@{proxy.place}")
        said = told("https://example.com/v1", pairs, "example.com", timeout=4.0)
        assert said.startswith("2: the proxy in the environment lets nothing through: ")
        assert "proxypassword" not in said
        assert "c29tZWJvZHk6" not in said  # base64 of the name and the colon
        assert proxy.questions[0].startswith(b"CONNECT example.com:443 ")
        assert not any(KEY.encode() in question for question in proxy.questions)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HTTPS_PROXY", "http://u:proxypassword@[::1", "1: its address, or a proxy's in the environment, cannot be us"),
        ("HTTPS_PROXY", "http://:0", "1: its address, or a proxy's in the environment, cannot be used"),
        ("HTTPS_PROXY", "socks5://127.0.0.1:9", ""),
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem", "1: cannot be asked: Could not find a suitable TLS CA certificate"),
    ],
)
def test_captions_transport_tells_an_environment_that_cannot_be_used(variable, value, said, pairs, monkeypatch):
    monkeypatch.setenv(variable, value)
    found = told("https://127.0.0.1:9/v1" if "CA" in variable else "https://example.com/v1", pairs)
    assert found.startswith(said), found
    assert "proxypassword" not in found


def test_captions_transport_unpacks_what_is_packed_and_reads_chunks(pairs):
    packed = gzip.compress(GOOD)
    chunked = b"".join(b"%x\r\n%s\r\n" % (1, packed[i : i + 1]) for i in range(len(packed))) + b"0\r\n\r\n"
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    given = [answer(200, packed, b"Content-Encoding: gzip\r\n"), head + chunked, b"HTTP/1.0 200 OK\r\n\r\n" + GOOD]
    with HostileServer(given) as server:
        for _ in given:
            made = OpenAi("m", server.url, "MY_KEY", size=64)
            assert made.caption("describe it", pairs) == "draw it in ink"
            assert made.tokens_used().asked == 7


@pytest.mark.parametrize(("count", "asked"), [("10000000000", 0), ("-3", 0), ("true", 0), ('"7"', 0), ("1e3", 0)])
def test_captions_transport_counts_no_tokens_that_are_no_count(count, asked, pairs):
    with HostileServer([answer(200, GOOD.replace(b"7", count.encode()))]) as server:
        made = OpenAi("m", server.url, "MY_KEY", size=64)
        assert made.caption("describe it", pairs) == "draw it in ink"
        assert made.tokens_used().asked == asked


def test_captions_transport_a_thread_that_is_interrupted_leaves_nothing_behind(pairs, monkeypatch):
    def pressed(self, timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(transport._Exchange, "outcome", pressed)
    with HostileServer([drips(b"HTTP/1.1 200 OK\r\n\r\n")]) as server:
        with pytest.raises(KeyboardInterrupt):
            OpenAi("m", server.url, "MY_KEY", size=64).caption("describe it", pairs)
        assert all_threads_end()
        assert server.finished == 0


def test_captions_plugin_imports_no_client_until_a_question_is_asked(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "clora_captions"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("requests", "urllib3"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it would fail
    import clora_captions

    assert [component.name for component in clora_captions.clora_captioners()] == ["qwen_vl", "openai"]


@pytest.mark.parametrize(
    "keys",
    [
        {"model": ""},
        {"model": "a" * 201},
        {"model": "a\nb"},
        {"model": "a\u202eb"},
        {"url": "https://" + "a" * 2000},
        {"url": "https://exa\u202emple.com/v1"},
        {"url": "https://example.com/\x00"},
        {"size": 10**60},
        {"timeout": 1e308},
        {"timeout": float("nan")},
        {"retries": 10**9},
        {"max_tokens": 10**60},
        {"temperature": 1e308},
        {"temperature": float("nan")},
    ],
)
def test_captions_openai_every_key_has_two_bounds(keys):
    with pytest.raises(ValueError, match=next(iter(keys))):
        OpenAi(**{"model": "m"} | keys)

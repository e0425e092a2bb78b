"""The captioner `openai` against a server on this machine that does what servers do, and what they should not."""

from __future__ import annotations

import base64
import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from clora_captions import http
from clora_captions.openai import OpenAi
from PIL import Image

from clora.api import CloraError, PictureError, TokensUsed

KEY = "sk-verysecretverysecretverysecret"


def good(text: str = "draw it in ink", **changes) -> bytes:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | changes
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 700, "completion_tokens": 30}}).encode()


class EditSampler:
    """Answers one question after another from `script`: (status, headers, body), or a function of the handler."""

    def __init__(self) -> None:
        self.script: list = []
        self.asked: list[tuple[str, dict[str, str], dict]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, dict(self.headers), json.loads(raw)))
                answer = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                if callable(answer):
                    answer(self)
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self.do_POST()  # fails without a body: nothing may ask this way

            def log_message(self, *args) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = EditSampler()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """How long the captioner would have waited between tries."""
    waited: list[float] = []
    monkeypatch.setattr(http, "sleep", waited.append)
    return waited


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[Path, Path]]:
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (400, 100), colour).save(tmp_path / f"{name}.png")
    return [(tmp_path / "a.png", tmp_path / "b.png")]


def captioner(server: EditSampler, **keys) -> OpenAi:
    return OpenAi(**{"model": "gpt-4o", "url": server.url, "key_from": "MY_KEY", "size": 64, "timeout": 5.0} | keys)


def refused(server: EditSampler, pairs, **keys) -> str:
    with pytest.raises(CloraError) as error:
        captioner(server, **keys).caption("describe it", pairs)
    assert KEY not in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_captions_openai_sends_words_and_pictures_in_order(server, pairs):
    server.script = [(200, {}, good())]
    made = captioner(server, temperature=0.5)
    assert made.caption("describe it", pairs) == "draw it in ink"
    ((path, headers, question),) = server.asked
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert (question["model"], question["temperature"], "max_tokens" in question) == ("gpt-4o", 0.5, False)
    (message,) = question["messages"]
    shown = [part.get("text") for part in message["content"]]
    assert shown == ["Pair 1, before:", None, "Pair 1, after:", None, "describe it"]
    urls = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    for url, colour in zip(urls, [(255, 0, 0), (0, 0, 255)], strict=True):
        head, _, data = url.partition(",")
        image = Image.open(BytesIO(base64.b64decode(data, validate=True)))
        assert (head, image.format, image.size) == ("data:image/jpeg;base64", "JPEG", (64, 16))
        seen = image.getpixel((8, 8))
        assert isinstance(seen, tuple)
        assert max(abs(a - b) for a, b in zip(seen, colour, strict=True)) < 12
    assert made.tokens_used() == TokensUsed(700, 30)
    made.caption("again", pairs)
    assert made.tokens_used() == TokensUsed(1400, 60)
    assert captioner(server).tokens_used() == TokensUsed(0, 0)


def test_captions_openai_without_a_key_sends_none_and_a_whole_url_stays(server, pairs):
    server.script = [(200, {}, good())]
    made = captioner(server, key_from=None, url=f"{server.url}/chat/completions/", max_tokens=99)
    assert made.caption("describe it", pairs) == "draw it in ink"
    path, headers, question = server.asked[0]
    assert (path, "Authorization" in headers, question["max_tokens"]) == ("/v1/chat/completions", False, 99)


def test_captions_openai_waits_as_long_as_it_is_asked_to(server, pairs, waits):
    date = formatdate(time.time() + 30, usegmt=True)
    busy = [(429, {"Retry-After": after}, b"{}") for after in ("7", date, "soon", "nan", "-3")]
    server.script = [*busy, (200, {}, good())]
    assert captioner(server, retries=5).caption("describe it", pairs) == "draw it in ink"
    assert waits[0] == 7
    assert 25 < waits[1] <= 30
    assert all(pause / 2 <= wait <= pause for wait, pause in zip(waits[2:], [4, 8, 16], strict=True))
    assert len(server.asked) == 6


def test_captions_openai_does_not_wait_for_an_hour(server, pairs, waits):
    server.script = [(429, {"Retry-After": "3600"}, b'{"error": {"message": "slow down"}}')]
    assert refused(server, pairs).endswith(
        ", attempt 1 of 5: it answers 429: slow down; it asks to wait at least 3600 s"
    )
    assert waits == []


@pytest.mark.parametrize("status", [500, 502, 503, 529])
def test_captions_openai_asks_servers_in_trouble_again(server, pairs, waits, status):
    server.script = [(status, {}, b"<html>oh dear</html>")]
    assert refused(server, pairs, retries=2).endswith(f", attempt 3 of 3: it answers {status}: <html>oh dear</html>")
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2
    server.script = [(status, {}, b""), (200, {}, good())]
    assert captioner(server, retries=1).caption("describe it", pairs) == "draw it in ink"


@pytest.mark.parametrize("status", [401, 403])
def test_captions_openai_tells_a_refused_key_without_it(server, pairs, waits, status):
    server.script = [(status, {}, json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode())]
    assert f"refuses the key, or what it was asked for with it ({status})" in refused(server, pairs)
    assert (waits, len(server.asked)) == ([], 1)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, b'{"error": {"message": "no pictures here", "code": "bad"}}', "it answers 400: no pictures here bad"),
        (404, b'{"error": "model not found"}', "it answers 404: model not found"),
        (404, b"", "it answers 404"),
        (422, f"you sent {KEY}!".encode(), "it answers 422: you sent ...!"),
        (
            429,
            b'{"error": {"message": "pay first", "code": "insufficient_quota"}}',
            "429: pay first insufficient_quota",
        ),
        (400, b"x" * 5000, "x" * 160 + "..."),
        (400, b'["a"]', 'it answers 400: ["a"]'),
    ],
)
def test_captions_openai_does_not_repeat_what_cannot_work(server, pairs, waits, status, body, said):
    server.script = [(status, {}, body)]
    assert refused(server, pairs).endswith(said)
    assert (waits, len(server.asked)) == ([], 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_captions_openai_never_carries_the_key_elsewhere(server, pairs, status):
    other = EditSampler()
    other.script = [(200, {}, good())]
    server.script = [(status, {"Location": f"{other.url}/chat/completions?x=1"}, b"")]
    said = refused(server, pairs)
    assert f"sends us on to '127.0.0.1:{other.http.server_address[1]}', where no key is taken" in said
    assert other.asked == []
    other.http.shutdown()
    other.http.server_close()


def slow(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)


def drips(handler: BaseHTTPRequestHandler) -> None:
    """An answer that never pauses long enough for the socket's own limit."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "said"), [(slow, "no answer within 0.3 s"), (drips, "no whole answer within 0.3 s")]
)
def test_captions_openai_gives_a_slow_server_up_and_tries_again(server, pairs, waits, answer, said):
    server.script = [answer]
    assert refused(server, pairs, timeout=0.3, retries=1).endswith(f", attempt 2 of 2: {said}")
    assert len(waits) == 1
    server.script = [answer, (200, {}, good())]
    assert captioner(server, timeout=0.3, retries=1).caption("describe it", pairs) == "draw it in ink"


def giant(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * (1 << 20))
    except OSError:
        pass


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")


def test_captions_openai_does_not_swallow_an_endless_answer(server, pairs, waits):
    server.script = [giant]
    assert refused(server, pairs).endswith("its answer is larger than 4 MB")
    assert waits == []


def test_captions_openai_a_server_that_is_not_there(server, pairs, waits):
    server.http.shutdown()
    server.http.server_close()
    assert refused(server, pairs, retries=1).endswith(", attempt 2 of 2: cannot be reached: Connection refused")
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not JSON", "its answer: is no JSON: Expecting value (line 1, column 1); it begins 'not JSON'"),
        (b"", "its answer: is no JSON: Expecting value (line 1, column 1); it begins ''"),
        (b"[" * 100_000, "its answer: is nested deeper than 64 levels"),
        (b"[]", "holds no choices[0].message.content"),
        (b'{"choices": []}', "holds no choices[0].message.content"),
        (b'{"choices": [{"message": null}]}', "holds no choices[0].message.content"),
        (b'{"choices": [{"message": {"content": 3}}]}', "the content of its answer is no text"),
        (good(finish_reason="length"), "breaks off at a limit of tokens; raise max_tokens"),
        (good(finish_reason="content_filter"), "its content filter kept the answer back"),
    ],
)
def test_captions_openai_tells_an_answer_that_holds_none(server, pairs, body, said):
    server.script = [(200, {}, body)]
    assert said in refused(server, pairs)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "refusal": "I cannot help"}, "I cannot help"),
        ({"content": ""}, ""),
        ({"content": [{"type": "text", "text": "in "}, {"type": "text", "text": "ink"}]}, "in ink"),
    ],
)
def test_captions_openai_other_forms_of_an_answer(server, pairs, message, text):
    server.script = [(200, {}, good(message=message))]
    assert captioner(server).caption("describe it", pairs) == text


def test_captions_openai_a_connection_that_breaks_is_tried_again(server, pairs, waits):
    server.script = [cut, (200, {}, good())]
    assert captioner(server, retries=1).caption("describe it", pairs) == "draw it in ink"
    assert len(waits) == 1


def test_captions_openai_a_broken_picture_is_named(server, pairs, tmp_path):
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(PictureError, match=r"b\.png is not a picture"):
        captioner(server).caption("describe it", pairs)
    assert server.asked == []


def test_captions_openai_is_ready_once_its_key_is_set(server, monkeypatch):
    assert list(captioner(server).ready()) == []
    assert captioner(server).name() == f"gpt-4o at {server.url.split('/')[2]}"
    monkeypatch.setenv("MY_KEY", "  ")
    assert list(captioner(server).ready()) == ["the environment variable MY_KEY is not set; `export MY_KEY=...`"]
    monkeypatch.setenv("MY_KEY", "two words")
    assert list(captioner(server).ready()) == ["what the environment variable MY_KEY holds is no key"]
    assert list(captioner(server, key_from=None).ready()) == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"key_from": KEY}, "'key_from' must name an environment variable"),
        ({"key_from": "AIzaSyA1234567890abcdefghijk"}, "'key_from' must name an environment variable"),
        ({"key_from": ""}, "'key_from' must name"),
        ({"model": KEY}, "'model' looks like a key"),
        ({"url": "http://example.com/v1"}, "'url' must begin with https://"),
        ({"url": "http://localhost.example.com/v1"}, "'url' must begin with https://"),
        ({"url": f"https://u:{KEY}@example.com/v1"}, "'url' may hold no user, password or query"),
        ({"url": f"https://example.com/v1?key={KEY}"}, "'url' may hold no user, password or query"),
        ({"url": "file:///etc/passwd"}, "'url' must be an address"),
        ({"url": "example.com/v1"}, "'url' must be an address"),
        ({"url": "https://[::1/v1"}, "'url' must be an address"),
        ({"url": "https://example.com:x/v1"}, "'url' must be an address"),
    ],
)
def test_captions_openai_refuses_keys_and_open_roads_in_a_recipe(keys, said):
    with pytest.raises(ValueError, match=r"must|may|looks") as error:
        OpenAi(**{"model": "gpt-4o"} | keys)
    assert str(error.value).startswith(said)
    assert KEY not in str(error.value)


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "http://127.0.0.1/v1", "http://[::1]:11434/v1"])
def test_captions_openai_takes_servers_on_this_machine_without_https(url):
    assert OpenAi("meta-llama/Llama-3-2-90B-Vision-Instruct", url=url).url == url

"""`clora caption` against a server that sends the key back wherever it can: nothing that is told or written has it."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from urllib.parse import quote

import pytest
from caption_bank import write_bank, write_recipe
from clora_captions import http
from clora_captions.openai import OpenAi
from clora_captions.secret import Secrets
from hostile_server import HostileServer, key_of

from clora import cli
from clora.errors import CloraError

KEY = "sk-Proj0Very-Secret1Very_Secret2VerySecret"

Spelling = Callable[[str], str]
#: how a server may write the key
SPELLINGS: dict[str, Spelling] = {
    "as it is": lambda key: key,
    "in capitals": str.upper,
    "in small letters": str.lower,
    "in a sentence": lambda key: f"wrong key '{key}', ask elsewhere",
    "in halves": lambda key: f"{key[:20]} {key[20:]}",
    "half of it": lambda key: key[:20],
    "with dots": ".".join,
    "with invisible signs": "\u200b".join,
    "for JSON": lambda key: "".join(f"\\u{ord(letter):04x}" for letter in key),
    "for JSON within JSON": lambda key: "".join(f"\\\\u{ord(letter):04x}" for letter in key),
    "for HTML": lambda key: "".join(f"&#{ord(letter)};" for letter in key),
    "for URLs": lambda key: quote(key).replace("e", "%65"),
    "for URLs twice": lambda key: "".join(f"%25{ord(letter):02X}" for letter in key),
    "in hexadecimal": lambda key: key.encode().hex(),
    **{
        f"in base64 after {len(before)}": lambda key, before=before: base64.b64encode(
            f"{before}{key}".encode()
        ).decode()
        for before in ("", "a", ":", "user:", "Bearer ")
    },
    "in base64 for URLs": lambda key: base64.urlsafe_b64encode(f"?>{key}".encode()).decode(),
}
#: parts of the key that nothing may hold, in small letters, and of its base64
TELLING = ("proj0very", "secret1very", "secret2", base64.b64encode(KEY.encode()).decode()[8:24].lower())

STATUSES = (200, 204, 302, 307, 401, 403, 404, 407, 429, 500, 529, 600, 999)
FORMS = ("message", "code", "text", "list", "caption", "refusal", "broken headers", "no answer")


def echo(status: int, form: str, spelling: Spelling) -> Callable:
    """Sends the key back in the reason, in headers and in the body."""

    def send(connection, question: bytes) -> None:
        key = spelling(key_of(question).decode()).encode()
        words = b'"' + key.replace(b"'", b"") + b'"'
        body = {
            "message": b'{"error": {"message": %s, "code": %s}}' % (words, words),
            "code": b'{"error": {"code": %s}}' % words,
            "text": key,
            "list": b"[%s]" % words,
            "caption": b'{"choices": [{"message": {"content": %s}}]}' % words,
            "refusal": b'{"choices": [{"message": {"refusal": %s}, "finish_reason": %s}]}' % (words, words),
            "broken headers": b'{"choices": [], %s: %s}' % (words, words),
            "no answer": key,
        }[form]
        if form == "no answer":
            connection.sendall(key + b"\r\n\r\n")
            return
        odd = b"no header " + key + b"\r\n : " + key + b"\r\n" if form == "broken headers" else b""
        connection.sendall(
            b"HTTP/1.1 %d %s\r\nLocation: https://%s.example/%s\r\nRetry-After: %s\r\nSet-Cookie: a=%s; domain=%s\r\n"
            b"Content-Type: text/%s; charset=%s\r\nX-%s: %s\r\nWWW-Authenticate: Basic realm=%s\r\n"
            b"Content-Encoding: %s\r\n%sContent-Length: %d\r\n\r\n%s"
            % (status, *[key] * 11, key if form == "list" else b"identity", odd, len(body), body)
        )

    return send


def holds_the_key(text: str) -> bool:
    """By plain looks, without what is tested here."""
    bare = "".join(letter for letter in text.lower() if letter.isalnum())
    return any(part in text.lower() or part in bare for part in TELLING)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setattr(http, "sleep", lambda seconds: None)
    write_bank(tmp_path, ["thermal"])
    return tmp_path


@pytest.mark.slow
def test_nothing_that_is_told_logged_or_written_has_the_key(folder, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "urllib3.connectionpool", "urllib3.connection", "requests"):
        caplog.set_level(logging.DEBUG, name)
    # every form with an answer and an error; the other statuses with one form each
    cases = [(status, form) for status in (200, 400) for form in FORMS]
    cases += [(status, FORMS[number % len(FORMS)]) for number, status in enumerate(STATUSES)]
    for (status, form), (name, spelling) in zip(cases, cycle(SPELLINGS.items()), strict=False):
        with HostileServer([echo(status, form, spelling)]) as server:
            write_recipe(folder / "r.yaml", server.url, "MY_KEY")
            code = cli.main(["caption", "r.yaml", "--set", "captioner.retries=1"])
            out, err = capsys.readouterr()
            assert server.questions, err
        assert code == 2, (status, form, name, out)
        assert "Traceback" not in out + err
        assert not holds_the_key(out + err), (status, form, name, out + err)
    assert len(caplog.records) > len(cases)  # urllib3 did log
    logged = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert not holds_the_key(logged)
    for file in folder.rglob("*"):
        assert not file.is_file() or not holds_the_key(file.read_bytes().decode("latin-1")), file
    assert not (folder / "captions.yaml").exists()


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_caption_or_an_error_with_the_key_in_any_spelling_is_not_repeated(name, folder, caplog):
    pairs = [(folder / "bank/thermal_before.png", folder / "bank/thermal_after.png")]
    for status, form in ((200, "caption"), (200, "refusal"), (400, "message"), (400, "broken headers"), (200, "text")):
        with HostileServer([echo(status, form, SPELLINGS[name])]) as server:
            made = OpenAi("some-vl", server.url, "MY_KEY", size=64, retries=0)
            with pytest.raises(CloraError) as error:
                made.caption("describe it", pairs)
        told = "".join(traceback.format_exception(error.value))
        assert not holds_the_key(told), told
        assert (error.value.__cause__, error.value.__context__) == (None, None)
        assert KEY not in repr(made)
    assert not holds_the_key(caplog.text)


@pytest.mark.parametrize("name", SPELLINGS)
def test_secrets_are_found_in_every_spelling_and_in_the_middle_of_a_text(name):
    secrets = Secrets((KEY,))
    for text in (SPELLINGS[name](KEY), f"draw it in ink {SPELLINGS[name](KEY)} on paper"):
        assert secrets.inside(text)
        assert not holds_the_key(secrets.hidden(text))


@pytest.mark.parametrize(
    "text",
    [
        "Redraw the subject, whether a person, a pet or an animal, as a monochrome ink drawing.",
        "model some-vl not found; see https://example.com/v1/models?x=%41&amp;y=\\u0041",
        "sk-" + "a" * 40,
        "&#" + "9" * 5000 + ";",
        "%" * 5000 + "&" * 5000 + "\\" * 5000 + "\\ud800 \ud800",
        "",
    ],
)
def test_secrets_leave_other_texts_as_they_are(text):
    for secrets in (Secrets((KEY,)), Secrets(()), Secrets(("ollama", "EMPTY", ":"))):
        assert not secrets.inside(text)
        assert secrets.hidden(text) == text


def test_a_placeholder_is_no_secret_but_is_not_repeated_as_a_word():
    secrets = Secrets(("EMPTY",))
    assert secrets.hidden("the key EMPTY is wrong") == "the key ... is wrong"
    assert not secrets.inside("an EMPTY room")  # captions may hold the word


def test_the_key_in_a_recipe_is_refused_without_it(folder, monkeypatch):
    for keys in ({"model": f"my {KEY}"}, {"url": f"https://example.com/{KEY}"}, {"url": f"https://{KEY[8:30]}.com"}):
        made = OpenAi(**{"model": "m", "key_from": "MY_KEY"} | keys)
        (sentence,) = made.ready()
        assert sentence == "`model` or `url` holds the key that MY_KEY names; a key never stands in a recipe"
    monkeypatch.setenv("MY_KEY", "a" * 5000)
    assert list(OpenAi("m", key_from="MY_KEY").ready()) == ["what the environment variable MY_KEY holds is no key"]
    assert json.dumps(list(OpenAi("m", key_from=None).ready())) == "[]"

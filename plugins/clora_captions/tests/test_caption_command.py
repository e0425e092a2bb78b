"""`clora caption` as people meet it: a bank without captions, a server that answers, an edit, and a plan that holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from caption_bank import write_bank, write_recipe
from clora_captions.openai import OpenAi
from PIL import Image

from clora import cli
from clora.api import read_captions
from clora.config.load import load_recipe
from clora.planning.plan import Plan, make_plan

EFFECTS = ("thermal", "sepia", "crystal_ball")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bank of three tiny LoRAs as another program lists them, each with a pair; none has a caption."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    write_bank(tmp_path, EFFECTS)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = question["messages"][0]["content"][-1]["text"]
            effect = next(effect for effect in EFFECTS if f"make it {effect}" in request)
            text = self.server.answers.get(effect, f"redraw the subject as {effect}")  # pyright: ignore[reportAttributeAccessIssue]
            self.server.asked.append(effect)  # pyright: ignore[reportAttributeAccessIssue]
            usage = {"prompt_tokens": 500, "completion_tokens": 20}
            body = json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.answers, made.asked = {}, []  # pyright: ignore[reportAttributeAccessIssue]
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    write_recipe(folder / "r.yaml", f"http://127.0.0.1:{made.server_address[1]}/v1")
    yield made
    made.shutdown()
    made.server_close()


Clora = Callable[..., tuple[int, str, str]]


@pytest.fixture
def clora(capsys: pytest.CaptureFixture[str]) -> Clora:
    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main([*words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def plan() -> Plan:
    return make_plan(load_recipe("r.yaml"))


@pytest.mark.slow
def test_the_whole_way_from_a_list_of_loras_to_a_plan(server, clora, folder):
    code, out, err = clora("validate", "r.yaml")
    assert code == 2
    assert "effects 'thermal', 'sepia', 'crystal_ball' have no caption" in err

    code, out, err = clora("caption", "r.yaml")
    assert code == 0, err
    assert [line.split(":")[0] for line in out.splitlines()[:3]] == [*EFFECTS]
    assert out.splitlines()[-1] == f"3 written to {folder / 'captions.yaml'}, 0 kept"
    assert "caption 2/3: sepia, 1 pair" in err
    assert "1,500 tokens asked, 60 answered by some-vl at 127.0.0.1" in err
    before = plan()
    assert before.prompts["sepia"].student.endswith("> redraw the subject as sepia")

    file = folder / "captions.yaml"
    file.write_text(file.read_text().replace("redraw the subject as sepia", "tint the person, pet or animal brown"))
    after = plan()
    assert after.prompts["sepia"].student.endswith("> tint the person, pet or animal brown")
    assert after.digest != before.digest  # a run with other words is another run

    server.asked.clear()
    code, out, err = clora("caption", "r.yaml")
    assert (code, server.asked) == (0, [])
    assert "sepia: kept, a person wrote it" in err
    code, out, err = clora("caption", "r.yaml", "--again", "sepia", "--set", "captioner.size=64")
    assert (code, server.asked) == (0, ["sepia"])
    assert plan().digest == before.digest
    with_another = make_plan(load_recipe("r.yaml", (), ["captioner.model=other"]))
    assert with_another.digest == before.digest  # who could write captions decides nothing of a run


def test_an_effect_that_fails_does_not_lose_the_others(server, clora, folder):
    server.answers["sepia"] = "I'm sorry, I can't help with that."
    (folder / "bank/crystal_ball_after.png").write_bytes(b"no picture, and told before anyone is asked")
    code, _, err = clora("caption", "r.yaml")
    assert code == 2
    assert "picture 'crystal_ball_after.png' is not a picture that can be read" in err
    assert server.asked == []

    Image.new("RGB", (16, 16)).save(folder / "bank/crystal_ball_after.png")
    code, _, err = clora("caption", "r.yaml")
    assert code == 2
    assert err.splitlines()[-2] == "1 of 3 effects got no caption:"
    assert err.splitlines()[-1].startswith("sepia: 3 answers of some-vl at 127.0.0.1")
    assert 'refuses: "I\'m sorry"' in err.splitlines()[-1]
    assert [*read_captions(folder / "captions.yaml")] == ["thermal", "crystal_ball"]
    assert server.asked == ["thermal", "sepia", "sepia", "sepia", "crystal_ball"]


def test_ctrl_c_keeps_what_is_written_and_the_same_command_goes_on(server, clora, folder, monkeypatch):
    def pressed(self, request, pairs):
        if "sepia" in request:
            raise KeyboardInterrupt
        return "redraw the subject in heat"

    with monkeypatch.context() as patched:
        patched.setattr(OpenAi, "caption", pressed)
        code, out, err = clora("caption", "r.yaml")
    assert (code, out) == (130, "thermal: redraw the subject in heat\n")
    assert "stopped by SIGINT; what was written to" in err.splitlines()[-1]
    code, out, _ = clora("caption", "r.yaml")
    assert (code, server.asked) == (0, ["sepia", "crystal_ball"])
    assert out.splitlines()[-1].endswith("captions.yaml, 1 kept")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("captioner: null\n", "r.yaml:1:1: section 'captioner' is missing; write `captioner: {use: NAME}`"),
        ("prompts: {use: shared}\n", "r.yaml:4:1: prompts: this prompt strategy reads no captions"),
        ("prompts: {use: aop, caption: false}\n", "prompts: captions are turned off, so none is read"),
        ("effects: [sepai]\n", "r.yaml:4:10: effects: the bank has no effect 'sepai'; did you mean 'sepia'?"),
    ],
)
def test_a_recipe_that_cannot_be_captioned_is_told(server, clora, folder, more, said):
    lines = (folder / "r.yaml").read_text().splitlines(keepends=True)
    (folder / "r.yaml").write_text("".join(lines[:2] if "captioner" in more else lines) + more)
    code, out, err = clora("caption", "r.yaml")
    assert (code, out) == (2, "")
    assert err.startswith(said), err


def test_a_missing_key_a_bank_without_a_place_and_a_wrong_name_are_told_before_anyone_is_asked(
    server, clora, folder, monkeypatch
):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    code, _, err = clora("caption", "r.yaml", "--set", "captioner.key_from=NO_SUCH_KEY")
    assert code == 2
    assert "captioner: the environment variable NO_SUCH_KEY is not set" in err
    code, _, err = clora("caption", "r.yaml", "--set", "captioner.key_from=sk-abcdefabcdefabcdefabcdef")
    assert (code, "sk-abc" in err) == (2, False)
    assert "captioner.key_from must name an environment variable" in err
    code, _, err = clora("caption", "r.yaml", "--set", "teachers.captions=null")
    assert (code, "say where captions are to lie" in err) == (2, True)
    code, _, err = clora("caption", "r.yaml", "--again", "sepai")
    assert (code, err) == (2, "--again: there is no effect 'sepai'; did you mean 'sepia'?\n")
    assert server.asked == []


def test_effects_of_the_recipe_are_asked_about_alone(server, clora):
    code, _, _ = clora("caption", "r.yaml", "--set", "effects=[crystal_ball]")
    assert (code, server.asked) == (0, ["crystal_ball"])

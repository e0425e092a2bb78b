"""What libraries raise and log: one short line, and never the key to the Hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from clora.errors import CloraError
from clora.toolkit.diffusers_folder import DiffusersFolder
from clora.toolkit.hub_files import hub_commit, hub_file, hub_reason
from clora.toolkit.library_errors import library_errors, library_reason, without_tokens

KEY = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123"


class PanicException(BaseException):
    """As the tokenizers' Rust code raises it."""


@pytest.mark.parametrize(
    "error",
    [ValueError("x" * 300_000), TypeError("a 'b'\n" * 9), KeyError("added"), AssertionError(), PanicException("oh")],
)
def test_whatever_a_library_raises_is_one_short_line(error: BaseException) -> None:
    with pytest.raises(CloraError) as caught, library_errors("model/vae"):
        raise error
    text = str(caught.value)
    assert text.startswith("model/vae: ")
    assert "\n" not in text
    assert "x" * 61 not in text
    assert len(text) < 220
    assert caught.value.__cause__ is error


def test_a_cloraerror_and_an_interrupt_pass() -> None:
    for error in (CloraError("as it is"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, library_errors("model"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_the_hubs_key_is_never_repeated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    key = "not-of-the-usual-form-42"
    monkeypatch.setenv(name, key)

    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError(f"403 for {key}: headers {{'Authorization': 'Bearer {key}', 'x': '{KEY}'}}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    hub_commit.cache_clear()
    hub_file.cache_clear()
    (found,) = DiffusersFolder("nobody/nothing").check({"vae": ("AutoencoderKL",)})
    assert "403 for ***" in found
    for secret in (key, KEY):
        assert secret not in found
        assert secret not in hub_reason(ValueError(f"{'x' * 140} {secret}"), "a/b")
        assert secret not in library_reason(ValueError(secret))


def test_headers_and_tokens_are_blotted_out_and_words_are_not() -> None:
    assert without_tokens(f"authorization: Bearer {KEY[3:]}!") == "***"
    assert without_tokens(f"Proxy-Authorization=Basic {KEY[3:]} end") == "*** end"
    plain = "hf_hub_download found no token; see `hf auth login` for the bearer"
    assert without_tokens(plain) == plain


def test_a_logged_message_is_cut_for_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.getLogger("diffusers")
    handler = Keep()
    logger.addHandler(handler)
    try:
        with library_errors("model"):
            logger.error("The config attributes %s were passed\x1b[2J %s", "A" * 300_000, KEY)
            logger.error("short\nand plain")
    finally:
        logger.removeHandler(handler)
    assert len(lines[0]) < 600
    assert lines[0].endswith("more characters)")
    assert lines[1] == "short\nand plain"


def test_a_part_of_the_hub_is_checked_before_a_library_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from transformers import Qwen2Tokenizer

    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / "c0ffee"
    (snapshot / "tokenizer").mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    (snapshot / "tokenizer" / "tokenizer_config.json").write_text('{"auto_map": {}}')
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(snapshot / "model_index.json"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **how: asked.append(how) or str(snapshot))
    hub_commit.cache_clear()
    with pytest.raises(CloraError, match=r"tokenizer_config\.json: auto_map: it names Python code"):
        DiffusersFolder("someone/tiny").load("tokenizer", Qwen2Tokenizer)
    assert asked[0]["revision"] == "c0ffee"
    assert not any("safetensors" in pattern for pattern in asked[0]["allow_patterns"])
    hub_commit.cache_clear()

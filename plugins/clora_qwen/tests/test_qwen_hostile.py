"""A Qwen-Image-Edit whose small files were tampered with: told by file and field, before anything large is built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import hostile_models as hostile
import pytest
import torch
from clora_qwen.backbone import QwenImageEdit, _tokenizer as tokenizer_of
from clora_qwen.processor import check_tokens

from clora.api import CloraError, NetworkMemory

CPU = torch.device("cpu")


@pytest.fixture
def backbone(tiny_qwen: Callable[[str], Path], tmp_path: Path) -> QwenImageEdit:
    """A copy whose files may be replaced."""
    model = hostile.linked(tiny_qwen("2511"), tmp_path / "model")
    return QwenImageEdit(model=str(model), memory=NetworkMemory("fp32"), side=64)


def validated(backbone: QwenImageEdit) -> list[str]:
    """What validate asks of a backbone that has no problems, and otherwise its problems."""
    if problems := list(backbone.check()):
        return problems
    assert backbone.targets()
    backbone.digest()
    return []


@pytest.mark.slow
def test_no_file_and_no_field_ends_in_a_traceback(backbone: QwenImageEdit) -> None:
    assert validated(backbone) == []
    counts = hostile.drive(Path(backbone.model), lambda: validated(backbone), every=13)
    assert counts["told"] > 300
    assert counts["passed"] < counts["told"] / 3
    assert validated(backbone) == []  # all is as before


@pytest.mark.parametrize(
    ("file", "path", "raw", "words"),
    [
        (
            "transformer/config.json",
            ["num_layers"],
            "1000000000",
            "num_layers is 1000000000; it must be a whole number",
        ),
        ("transformer/config.json", ["num_layers"], "200", "its weights lack transformer_blocks.2"),
        ("transformer/config.json", ["num_attention_heads"], "1024", "is [32, 32] in its weights"),
        ("transformer/config.json", ["axes_dims_rope"], "[4, 6, 8]", "axes_dims_rope is [4, 6, 8]; even numbers"),
        ("transformer/config.json", ["guidance_embeds"], "1", "guidance_embeds is 1; it must be true or false"),
        ("transformer/config.json", ["auto_map"], '{"AutoModel": "evil.Evil"}', "auto_map: it names Python code"),
        ("transformer/config.json", ["unknown"], '"' + "A" * 60_000 + '"', "unknown is a text of 60,000 characters"),
        ("vae/config.json", ["latents_std", 3], "0", "latents_std[3] is 0; it must be a number from 0.0001"),
        (
            "vae/config.json",
            ["temperal_downsample"],
            "[]",
            "temperal_downsample is a list of 0; it must be a list of 3",
        ),
        ("text_encoder/config.json", ["text_config", "vocab_size"], "1e308", "text_config.vocab_size is 1e+308"),
        ("text_encoder/config.json", ["vision_config", "window_size"], "1", "vision_config.window_size is 1, less"),
        ("text_encoder/config.json", ["text_config", "num_hidden_layers"], "3", "layer_types has 2 layers, but"),
        ("text_encoder/config.json", ["image_token_id"], "99999", "image_token_id is 99999, but vocab_size is 270"),
        ("scheduler/scheduler_config.json", ["max_image_seq_len"], "256", "it must be more than base_image_seq_len"),
        ("scheduler/scheduler_config.json", ["shift"], "1e-320", "shift is 1e-320; no number of a model is that small"),
        ("processor/preprocessor_config.json", ["min_pixels"], "1000000000", "min_pixels is 1000000000; it must be"),
        ("processor/tokenizer_config.json", ["padding_side"], '"up"', "padding_side is 'up'; it must be left or right"),
        ("tokenizer/tokenizer_config.json", ["model_max_length"], "-1", "model_max_length is -1; it must be a number"),
        ("model_index.json", ["vae"], '["x", "y", "z"]', "vae is a list of 3; it must be a list of 2"),
        ("model_index.json", ["_class_name"], '["a", "b"]', "_class_name is a list; it must be a name"),
    ],
)
def test_a_field_is_named_with_its_file(
    backbone: QwenImageEdit, file: str, path: list[str], raw: str, words: str
) -> None:
    with hostile.field_set(Path(backbone.model) / file, tuple(path), raw):
        problems = validated(backbone)
    assert any(words in problem for problem in problems), problems
    for problem in problems:
        hostile.assert_plain(problem, Path(backbone.model) / file.split("/")[0])


def test_a_tokenizer_that_says_1e30_for_no_limit_is_read(backbone: QwenImageEdit) -> None:
    file = Path(backbone.model) / "tokenizer/tokenizer_config.json"
    with hostile.field_set(file, ("model_max_length",), str(int(1e30))):
        assert validated(backbone) == []


@pytest.mark.parametrize(
    ("file", "path", "raw", "words"),
    [
        ("tokenizer/tokenizer.json", ["model"], "{}", "tokenizer cannot be loaded"),
        ("tokenizer/tokenizer.json", ["truncation"], json.dumps("A" * 300_000), "tokenizer cannot be loaded"),
        ("text_encoder/config.json", ["image_token_id"], "3", "image_token_id is 3, but the tokenizer's"),
        ("text_encoder/config.json", ["vision_config", "depth"], "3", "its weights lack"),
        ("text_encoder/config.json", ["text_config", "vocab_size"], "271", "text_encoder cannot be loaded"),
        ("text_encoder/config.json", ["architectures"], "[]", ""),
        ("text_encoder/generation_config.json", ["eos_token_id"], '{"x": [1]}', ""),
        ("processor/preprocessor_config.json", ["image_processor_type"], '"Nothing"', ""),
    ],
)
def test_what_only_a_library_can_tell_is_told_without_a_traceback(
    backbone: QwenImageEdit, file: str, path: list[str], raw: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer_of.cache_clear()
    with hostile.field_set(Path(backbone.model) / file, tuple(path), raw):
        assert validated(backbone) == []
        if not words:  # it may work
            try:
                backbone.load(CPU).encode_prompts(["make it red"], torch.zeros(1, 3, 64, 64))
            except CloraError as error:
                hostile.assert_plain(str(error), backbone.model)
        else:
            with pytest.raises(CloraError) as caught:
                backbone.load(CPU).encode_prompts(["make it red"], torch.zeros(1, 3, 64, 64))
            assert words in str(caught.value)
            hostile.assert_plain(str(caught.value), backbone.model)
    tokenizer_of.cache_clear()
    assert "A" * 100 not in "".join(capfd.readouterr())


def test_tokens_beyond_the_text_encoders_words_are_refused(backbone: QwenImageEdit) -> None:
    class Words:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "b": 1_000_000}

    with pytest.raises(CloraError, match="it has a token 1000000, but the text encoder 270 words"):
        check_tokens(backbone.folder, Words(), SimpleNamespace(text_config=SimpleNamespace(vocab_size=270)))


def test_an_unknown_field_never_reaches_the_terminal_whole(
    backbone: QwenImageEdit, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Path(backbone.model) / "transformer/config.json"
    with hostile.field_set(file, ("surplus",), json.dumps("A" * 40_000)):
        assert validated(backbone) == []
        assert backbone.footprint(4, (64, 64)).weights > 0
        assert backbone.load(CPU).network is not None
    said = "".join(capfd.readouterr())
    assert "A" * 600 not in said
    assert len(said) < 5_000


def test_a_scheduler_without_levels_is_named(backbone: QwenImageEdit) -> None:
    file = Path(backbone.model) / "scheduler/scheduler_config.json"
    with hostile.field_set(file, ("max_image_seq_len",), "257"):
        assert validated(backbone) == []
        with pytest.raises(CloraError, match=r"scheduler_config\.json: its shift for 65,536 tokens is e"):
            backbone.load(CPU).schedule(8, torch.zeros(1, 16, 512, 512))

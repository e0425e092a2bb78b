"""A FLUX.1 Kontext whose small files were tampered with: told by file and field, before anything large is built."""

from __future__ import annotations

from pathlib import Path

import hostile_models as hostile
import pytest
import torch
from clora_flux.backbone import FluxKontext

from clora.api import CloraError, NetworkMemory

CPU = torch.device("cpu")


@pytest.fixture
def backbone(tiny_flux: Path, tmp_path: Path) -> FluxKontext:
    """A copy whose files may be replaced."""
    return FluxKontext(str(hostile.linked(tiny_flux, tmp_path / "model")), memory=NetworkMemory("fp32"))


def validated(backbone: FluxKontext) -> list[str]:
    """What validate asks of a backbone that has no problems, and otherwise its problems."""
    if problems := list(backbone.check()):
        return problems
    assert backbone.targets()
    backbone.digest()
    backbone.multiple()
    return []


@pytest.mark.slow
def test_no_file_and_no_field_ends_in_a_traceback(backbone: FluxKontext) -> None:
    assert validated(backbone) == []
    counts = hostile.drive(Path(backbone.model), lambda: validated(backbone), every=13)
    assert counts["told"] > 250
    assert counts["passed"] < counts["told"] / 3
    assert validated(backbone) == []


@pytest.mark.parametrize(
    ("file", "path", "raw", "words"),
    [
        ("transformer/config.json", ["num_single_layers"], "1000000000", "num_single_layers is 1000000000; it must be"),
        ("transformer/config.json", ["num_single_layers"], "250", "its weights lack single_transformer_blocks.2"),
        ("transformer/config.json", ["axes_dims_rope"], "[]", "axes_dims_rope is a list of 0; it must be a list of 3"),
        ("transformer/config.json", ["patch_size"], "2", "it makes 256 channels"),
        ("vae/config.json", ["block_out_channels", 0], "1000000000", "block_out_channels[0] is 1000000000"),
        ("vae/config.json", ["block_out_channels"], "[8, 8]", "down_block_types has 4 blocks"),
        ("vae/config.json", ["norm_num_groups"], "3", "norm_num_groups is 3, which does not divide"),
        ("vae/config.json", ["scaling_factor"], "0", "scaling_factor is 0; it must be a number from 0.0001"),
        ("vae/config.json", ["down_block_types", 0], '"Evil"', "down_block_types[0] is 'Evil'"),
        ("text_encoder/config.json", ["pad_token_id"], "99999", "pad_token_id is 99999, but vocab_size is 514"),
        ("text_encoder_2/config.json", ["relative_attention_max_distance"], "8", "more than a quarter"),
        ("text_encoder_2/config.json", ["feed_forward_proj"], '"x"', "feed_forward_proj is 'x'"),
        ("scheduler/scheduler_config.json", ["num_train_timesteps"], "1000000000", "num_train_timesteps is 1000000000"),
        ("tokenizer_2/tokenizer_config.json", ["extra_ids"], "1000000000", "extra_ids is 1000000000"),
    ],
)
def test_a_field_is_named_with_its_file(
    backbone: FluxKontext, file: str, path: list[str], raw: str, words: str
) -> None:
    with hostile.field_set(Path(backbone.model) / file, tuple(path), raw):
        problems = validated(backbone)
    assert any(words in problem for problem in problems), problems
    for problem in problems:
        hostile.assert_plain(problem, Path(backbone.model) / file.split("/")[0])


@pytest.mark.parametrize(
    ("file", "path", "raw", "words"),
    [
        ("text_encoder/config.json", ["max_position_embeddings"], "10", "text_encoder cannot be loaded"),
        ("text_encoder_2/config.json", ["num_layers"], "3", "weights lack"),
        ("tokenizer/tokenizer.json", ["model"], "3", "tokenizer cannot be loaded"),
        ("tokenizer_2/tokenizer.json", ["model", "vocab"], "[]", "tokenizer_2"),
    ],
)
def test_what_only_a_library_can_tell_is_told_without_a_traceback(
    backbone: FluxKontext, file: str, path: list[str], raw: str, words: str
) -> None:
    with hostile.field_set(Path(backbone.model) / file, tuple(path), raw):
        assert validated(backbone) == []
        with pytest.raises(CloraError) as caught:
            backbone.load(CPU).encode_prompts(["make it red"], torch.zeros(1, 3, 64, 64))
    assert words in str(caught.value)
    hostile.assert_plain(str(caught.value), backbone.model)

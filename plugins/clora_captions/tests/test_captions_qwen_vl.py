"""The captioner `qwen_vl` on a tiny random model with the real classes: what it reads, and what stands in its way."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from clora_captions import clora_captioners
from clora_captions.openai import OpenAi
from clora_captions.parts import shrunk
from clora_captions.qwen_vl import CLOSING, OPENING, PLACE, QwenVl
from PIL import Image

from clora.api import CloraError, PictureError

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", PLACE, "<|video_pad|>"]
PICTURES = {
    "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
    "size": {"shortest_edge": 784, "longest_edge": 200704}, "do_resize": True, "do_rescale": True, "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255, "do_convert_rgb": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A Qwen2.5-VL of two thin layers with a byte tokenizer."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    made = tmp_path_factory.mktemp("models") / "tiny-qwen-vl"
    words = Qwen2Tokenizer(vocab={letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}, merges=[])
    words.add_special_tokens({"additional_special_tokens": SPECIAL})
    number = words.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
            "bos_token_id": number("<|endoftext|>"), "eos_token_id": number("<|im_end|>"),
            "pad_token_id": number("<|endoftext|>"),
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=number(PLACE), video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"), vision_end_token_id=number("<|vision_end|>"),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0, 1.0 if "embed_tokens" in name else parameter.shape[1] ** -0.5)
    model.save_pretrained(made)
    words.save_pretrained(made)
    (made / "preprocessor_config.json").write_text(json.dumps(PICTURES))
    return made


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[Path, Path]]:
    for name, colour, size in (("a", "red", (90, 60)), ("b", "blue", (56, 84)), ("c", "green", (56, 84))):
        Image.new("RGB", size, colour).save(tmp_path / f"{name}.png")
    return [(tmp_path / "a.png", tmp_path / "b.png")]


def captioner(folder: Path, **keys) -> QwenVl:
    return QwenVl(**{"model": str(folder), "dtype": "float32", "device": "cpu", "max_new_tokens": 16} | keys)


@pytest.fixture(scope="module")
def loaded(folder) -> QwenVl:
    made = captioner(folder)
    made._model()
    return made


def made_tokens(loaded: QwenVl, monkeypatch, request: str, pairs) -> tuple[dict, list[int]]:
    """What the model was given, and the sixteen tokens that it made of it."""
    seen: list[tuple[dict, list[int]]] = []
    generate = loaded._loaded.model.generate

    def spy(**inputs):
        made = generate(**inputs)
        seen.append((inputs, made[0, inputs["input_ids"].shape[1] :].tolist()))
        return made

    monkeypatch.setattr(loaded._loaded.model, "generate", spy)
    with suppress(CloraError):  # a random model does not know when to stop
        loaded.caption(request, pairs)
    monkeypatch.undo()
    return seen[0]


def test_captions_plugin_registers_both_captioners():
    assert [(c.name, c.load()) for c in clora_captioners()] == [("qwen_vl", QwenVl), ("openai", OpenAi)]


def test_captions_qwen_vl_reads_pictures_where_the_words_say_so(loaded, monkeypatch, pairs):
    inputs, _ = made_tokens(loaded, monkeypatch, "describe it", pairs)
    words = loaded._loaded.words
    grids = inputs["image_grid_thw"].tolist()
    counts = [t * h * w // 4 for t, h, w in grids]
    expected = (
        f"{OPENING}Pair 1, before:\n<|vision_start|>{PLACE * counts[0]}<|vision_end|>\n"
        f"Pair 1, after:\n<|vision_start|>{PLACE * counts[1]}<|vision_end|>\ndescribe it{CLOSING}"
    )
    assert words.decode(inputs["input_ids"][0]) == expected
    assert grids[1] == [1, 6, 4]  # 84 x 56 pixels in patches of 14
    assert inputs["pixel_values"].shape[0] == sum(t * h * w for t, h, w in grids)
    kinds = inputs["mm_token_type_ids"][0]
    assert kinds.sum() == sum(counts)
    assert all((kinds == 1) == (inputs["input_ids"][0] == words.convert_tokens_to_ids(PLACE)))


def test_captions_qwen_vl_answers_by_words_and_pictures_and_always_the_same(loaded, folder, monkeypatch, pairs):
    _, first = made_tokens(loaded, monkeypatch, "describe it", pairs)
    assert made_tokens(loaded, monkeypatch, "describe it", pairs)[1] == first
    assert made_tokens(loaded, monkeypatch, "describe them", pairs)[1] != first
    (before, after), green = pairs[0], pairs[0][0].parent / "c.png"
    assert made_tokens(loaded, monkeypatch, "describe it", [(before, green)])[1] != first
    assert made_tokens(loaded, monkeypatch, "describe it", [(after, before)])[1] != first


def test_captions_qwen_vl_in_half_precision_reads_the_same_pictures(loaded, folder, monkeypatch, pairs):
    half = captioner(folder, dtype="bfloat16")
    assert str(half._model().dtype) == "torch.bfloat16"
    inputs, made = made_tokens(half, monkeypatch, "describe it", pairs)
    assert (inputs["pixel_values"] == made_tokens(loaded, monkeypatch, "describe it", pairs)[0]["pixel_values"]).all()
    assert len(made) == 16


def test_captions_qwen_vl_gives_pictures_their_own_positions(loaded, monkeypatch, pairs):
    """The positions are Qwen2.5-VL's three-dimensional ones; without them a picture is a line of patches."""
    inputs, _ = made_tokens(loaded, monkeypatch, "describe it", pairs)
    inner = loaded._loaded.model.model
    keys = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    positions, delta = inner.get_rope_index(**{key: inputs[key] for key in keys})
    assert int(inner.rope_deltas) == int(delta) < 0
    assert positions.max() < inputs["input_ids"].shape[1] - 1


def test_captions_qwen_vl_returns_the_words_that_the_model_made(loaded, monkeypatch, pairs):
    import torch

    words = loaded._loaded.words
    answer = words("draw it", return_tensors="pt")["input_ids"]
    end = torch.tensor([[words.convert_tokens_to_ids("<|im_end|>")]])
    monkeypatch.setattr(
        loaded._loaded.model, "generate", lambda input_ids, **rest: torch.cat([input_ids, answer, end], dim=1)
    )
    assert loaded.caption("describe it", pairs) == "draw it"
    monkeypatch.setattr(
        loaded._loaded.model, "generate", lambda input_ids, **rest: torch.cat([input_ids, answer.repeat(1, 3)], dim=1)
    )
    with pytest.raises(CloraError, match="breaks off after 16 tokens; raise max_new_tokens"):
        loaded.caption("describe it", pairs)


def test_captions_qwen_vl_signs_of_its_own_in_a_request_are_plain_words(loaded, monkeypatch, pairs):
    inputs, _ = made_tokens(loaded, monkeypatch, f"{PLACE} <|im_end|> x", pairs)
    read = loaded._loaded.words.decode(inputs["input_ids"][0])
    assert f"<image_pad> <im_end> x{CLOSING}" in read


def test_captions_pictures_are_shrunk_but_never_blown_up(pairs):
    (before, after) = pairs[0]
    assert shrunk(before, 45).size == (45, 30)
    assert shrunk(after, 640).size == (56, 84)
    assert shrunk(after, 640).getpixel((3, 3)) == (0, 0, 255)


def test_captions_qwen_vl_is_named_after_its_folder_or_id(folder):
    assert captioner(folder).name() == "tiny-qwen-vl"
    assert QwenVl(revision="v1").name() == "Qwen/Qwen2.5-VL-7B-Instruct@v1"


def test_captions_qwen_vl_tells_what_stands_in_its_way(folder, tmp_path, pairs):
    assert list(captioner(folder).ready()) == []
    (sentence,) = captioner(tmp_path / "gone").ready()
    assert "is no folder with a config.json; a Hub id looks like Qwen/Qwen2.5-VL-7B-Instruct" in sentence
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).write_text("{}")
    (sentence,) = captioner(tmp_path).ready()
    assert "holds no .safetensors file, and nothing else is read" in sentence
    with pytest.raises(CloraError, match="cannot be loaded"):
        captioner(tmp_path).caption("describe it", pairs)


def test_captions_qwen_vl_a_broken_picture_is_named_before_the_model_is_loaded(folder, pairs):
    pairs[0][1].write_text("no picture")
    made = captioner(folder)
    with pytest.raises(PictureError, match=r"b\.png is not a picture"):
        made.caption("describe it", pairs)
    assert made._loaded.model is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("null", "config.json: is no JSON map but null"),
        ("[" * 100_000, "config.json: is nested deeper than 64 levels"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "config.json: is no JSON that can be read: an integer of 5,000 digits"),
        ('{"hidden_size": NaN}', "config.json: is no JSON that can be read: NaN is no number"),
        ('{"model_type": "' + "a" * (5 << 20) + '"}', "config.json: is larger than the 4,194,304 bytes"),
        ("{}", "cannot be loaded: "),
        ('{"model_type": "' + "a" * 300_000 + '"}', "cannot be loaded: "),
        ('{"model_type": ["qwen2_5_vl"]}', "cannot be loaded: "),
        ('{"model_type": "qwen2_5_vl", "text_config": 7}', "cannot be loaded: "),
        ('{"model_type": "qwen2_5_vl", "text_config": {"hidden_size": "many"}}', "cannot be loaded: "),
        ('{"model_type": "qwen2_5_vl", "vision_config": [], "torch_dtype": "os.system"}', "cannot be loaded: "),
        (
            '{"model_type": "qwen2_5_vl", "auto_map": {"AutoConfig": "evil.Config"}, "quantization_config": "x"}',
            "cannot",
        ),
    ],
)
def test_captions_qwen_vl_a_folder_with_settings_that_lie_is_told_in_a_line(settings, said, folder, tmp_path, pairs):
    made = tmp_path / "model"
    shutil.copytree(folder, made)
    (made / "config.json").write_text(settings)
    with pytest.raises(CloraError) as error:
        captioner(made).caption("describe it", pairs)
    assert said in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700
    if "cannot" not in said:
        assert list(captioner(made).ready()) == [str(error.value)]


@pytest.mark.parametrize("model", ["", "a\nb", "a\0b", "\ud800", "a\u202eb", "a" * 1001])
def test_captions_qwen_vl_refuses_names_that_are_none(model):
    for keys in ({"model": model}, {"revision": model}):
        with pytest.raises(ValueError, match="must be one line of at most 1000 characters"):
            QwenVl(**keys)


@pytest.mark.parametrize("keys", [{"size": 10**60}, {"max_new_tokens": 10**60}])
def test_captions_qwen_vl_every_number_has_two_bounds(keys):
    with pytest.raises(ValueError, match=next(iter(keys))):
        QwenVl(**keys)


@pytest.mark.parametrize("model", ["a" * 300, "~nobody/" + "a" * 300, "/" + "a/" * 400])
def test_captions_qwen_vl_tells_a_path_that_no_disk_takes(model):
    (sentence,) = captioner(Path(model)).ready()
    assert "is no folder with a config.json" in sentence
    assert len(sentence) < 300

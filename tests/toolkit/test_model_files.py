"""The small files of a model: where they may lie, what they may say, and an index of weights that lies."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import hostile_models as hostile
import pytest
import torch
from safetensors.torch import save_file

from clora.errors import CloraError
from clora.toolkit.diffusers_folder import DiffusersFolder, placed
from clora.toolkit.model_files import MAX_FILES, files_problems, inside, read_config
from clora.toolkit.weight_files import weights_misfits, weights_problems

CLASSES = {"transformer": ("QwenImageTransformer2DModel",), "tokenizer": ("Qwen2Tokenizer",)}
CONFIG = Path("transformer") / "config.json"


@pytest.fixture
def model(tiny_qwen: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy whose files may be replaced."""
    return hostile.linked(tiny_qwen("2511"), tmp_path / "model")


def problems(model: Path) -> list[str]:
    return DiffusersFolder(str(model)).check(CLASSES)


@pytest.mark.parametrize("name", ["transformer/config.json", "tokenizer/tokenizer.json", "model_index.json"])
def test_a_link_out_of_the_folder_is_refused_and_never_quoted(model: Path, name: str) -> None:
    outside = model.parent / "elsewhere.json"
    outside.write_text('{"secret": "s3cr3t"}')
    for target in (outside, Path("/etc/passwd"), Path("../../elsewhere.json")):
        with hostile.replaced(model / name, lambda path, target=target: path.symlink_to(target)):
            found = problems(model)
            assert len(found) == 1
            assert found[0].startswith(f"{model}/{name}: is a link out of the model's folder") or "no such" in found[0]
            assert "s3cr3t" not in found[0]


def test_a_link_within_the_folder_and_a_whole_folder_of_links_elsewhere(model: Path) -> None:
    (model / CONFIG).rename(model / "transformer.json")
    (model / CONFIG).symlink_to("../transformer.json")
    assert problems(model) == []
    assert DiffusersFolder(str(model)).digest()
    (model / "tokenizer").rename(model.parent / "tokenizer")
    (model / "tokenizer").symlink_to(model.parent / "tokenizer")
    (found,) = problems(model)
    assert f"{model}/tokenizer/tokenizer_config.json: is a link out of the model's folder" in found
    with pytest.raises(CloraError, match="is a link out of"):
        DiffusersFolder(str(model)).config("tokenizer")


@pytest.mark.parametrize("shared", [False, True])
def test_the_layout_of_the_hugging_face_cache_is_read(model: Path, tmp_path: Path, shared: bool) -> None:
    hub = tmp_path / "hub"
    repo = hub / "models--someone--tiny"
    snapshot = repo / "snapshots" / "c0ffee"
    for number, file in enumerate(sorted(path for path in model.rglob("*") if path.is_file())):
        link, blob = snapshot / file.relative_to(model), repo / "blobs" / f"{number:040x}"
        for folder in (link.parent, blob.parent, hub / "blobs" / "ab"):
            folder.mkdir(parents=True, exist_ok=True)
        if shared:  # the blobs themselves are links to those that several models share
            shutil.copy(file, hub / "blobs" / "ab" / f"{number:064x}")
            blob.symlink_to(f"../../blobs/ab/{number:064x}")
        else:
            shutil.copy(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    assert problems(snapshot) == []
    assert DiffusersFolder(str(snapshot)).digest() == DiffusersFolder(str(model)).digest()
    other = hub / "models--someone--else" / "blobs" / "0"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    (snapshot / CONFIG).unlink()
    (snapshot / CONFIG).symlink_to(other)  # another model's
    assert "is a link out of the model's folder" in problems(snapshot)[0]


def test_links_in_a_circle_and_a_pipe_are_named(model: Path) -> None:
    path = model / CONFIG
    with hostile.replaced(path, lambda path: path.symlink_to(path.name)), pytest.raises(CloraError):
        read_config(path, model)
    with hostile.replaced(path, os.mkfifo), pytest.raises(CloraError, match="is no file"):
        read_config(path, model)  # nothing waits for a writer
    assert inside(path, model) == path


def test_what_would_run_code_or_fetch_another_model_is_refused_and_not_run(model: Path) -> None:
    from transformers import Qwen2Tokenizer

    ran = model.parent / "ran"
    (model / "tokenizer" / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    file = model / "tokenizer" / "tokenizer_config.json"
    with hostile.field_set(file, ("auto_map",), '{"AutoTokenizer": ["evil.Evil", "evil.Evil"]}'):
        (found,) = problems(model)
        assert found == f"{file}: auto_map: it names Python code, and no model's own code is run; " + (
            "remove the key where you trust the rest"
        )
        DiffusersFolder(str(model)).load("tokenizer", Qwen2Tokenizer)  # nor does it run where nobody checked
    assert not ran.exists()
    (model / "transformer" / "adapter_config.json").write_text('{"base_model_name_or_path": "/somewhere"}')
    (found,) = problems(model)
    assert "adapter_config.json: it would have another model loaded" in found


def test_limits_are_told(model: Path) -> None:
    for name, words in (
        ("transformer/more.json", "more.json: is larger than the 4,194,304 bytes"),
        ("tokenizer/vocab.json", "vocab.json: is larger than the 67,108,864 bytes"),
        ("tokenizer/merges.txt", "merges.txt: is larger than the 67,108,864 bytes"),
    ):
        with (model / name).open("wb") as file:
            file.truncate((64 << 20) + 1)  # a hole: no bytes on the disk
        assert any(words in problem for problem in problems(model)), name
        with pytest.raises(CloraError, match="is larger than"):
            DiffusersFolder(str(model)).digest()
        (model / name).unlink()
    many = model / "many"
    many.mkdir()
    for number in range(MAX_FILES + 1):
        (many / f"{number}.json").touch()
    assert files_problems(many, model) == [f"{many}: has more than {MAX_FILES} files"]


def test_many_problems_are_told_as_a_few_and_a_count(model: Path) -> None:
    for number in range(50):
        (model / "transformer" / f"broken{number}.json").write_text("{")
    found = problems(model)
    assert len(found) == 6
    assert found[-1].endswith("(and 44 more)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "weight_map is no map"),
        ("{}", "weight_map is no map"),
        ('{"weight_map": null}', "weight_map is no map of tensors to files, found null"),
        ('{"weight_map": {}}', "weight_map is no map"),
        ('{"weight_map": {"a": 3}}', "'a' is in the number 3"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "the key 'a' stands twice"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "'../x.safetensors' is no safetensors file beside it"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "'/etc/passwd' is no safetensors file beside it"),
        ('{"weight_map": {"a": "x.bin"}}', "'x.bin' is no safetensors file beside it"),
        ('{"weight_map": {"a": "' + "A" * 300_000 + '.safetensors"}}', "(299,952 more characters) is no safetensors"),
        ('{"weight_map": {"a": "x.safetensors"}, "metadata": 3}', "metadata must be a map, found the number 3"),
        ('{"weight_map": {"a": "x.safetensors"}, "metadata": {"total_size": ' + "9" * 5000 + "}}", "5,000 digits"),
        ("[" * 100_000, "nested deeper than 64 levels"),
        (json.dumps({"weight_map": {f"t{i}": f"s{i}.safetensors" for i in range(1001)}}), "names 1,001 files"),
        (json.dumps({"weight_map": dict.fromkeys(map(str, range(200_001)), "s.safetensors")}), "has 200,001 tensors"),
    ],
)
def test_an_index_that_lies_is_named(tmp_path: Path, text: str, words: str) -> None:
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(text)
    (found,) = weights_problems(tmp_path)
    assert words in found, found
    hostile.assert_plain(found, index)


def test_missing_shards_are_told_as_a_few_and_a_count(tmp_path: Path) -> None:
    places = {f"t{number}": f"s{number:04}.safetensors" for number in range(1000)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    found = weights_problems(tmp_path)
    assert len(found) == 6
    assert found[0] == f"{tmp_path}/s0000.safetensors: there is no such file"
    assert found[-1].endswith("(and 994 more)")


def test_weights_that_are_not_those_of_the_configuration_are_named(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(3, 2), "b.weight": torch.zeros(4, 4)}, tmp_path / "model.safetensors")
    assert weights_misfits(tmp_path, {"a": (2, 3), "b": (4, 4)}) == []
    first, second = weights_misfits(tmp_path, {"a": (2, 5), "c": (1, 1), "d": (1, 1)})
    assert "a is [3, 2] in its weights, but [5, 2] by its config.json" in first
    assert "lack c, which its config.json promises (and 1 more)" in second


@pytest.mark.parametrize("model", ["", "a\0b", "x" * 5000, "x" * 300, "~nobody-at-all/model"])
def test_a_place_that_can_be_none_is_no_traceback(model: str, tmp_path: Path) -> None:
    folder = DiffusersFolder(placed(model, tmp_path) if model else model)
    (found,) = folder.check(CLASSES)
    assert found.startswith("model: ")
    assert len(found) < 600

"""A model in diffusers' layout: what is wrong with it is told by name before anything is loaded."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clora.errors import CloraError
from clora.toolkit.diffusers_folder import DiffusersFolder, placed
from clora.toolkit.hub_files import hub_commit, hub_file

CLASSES = {
    "transformer": ("QwenImageTransformer2DModel",),
    "vae": ("AutoencoderKLQwenImage",),
    "text_encoder": ("Qwen2_5_VLForConditionalGeneration",),
    "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    "scheduler": ("FlowMatchEulerDiscreteScheduler",),
}
WEIGHTS = Path("transformer") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tiny_qwen: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(tiny_qwen("2511"), tmp_path / "model")


def problems(model: Path) -> list[str]:
    return DiffusersFolder(str(model)).check(CLASSES)


def shard(model: Path) -> Path:
    """The transformer's weights in two shards with an index, as large models have them; returns the index."""
    tensors = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    names = sorted(tensors)
    places: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, model / "transformer" / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = model / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_a_folder_is_relative_to_the_recipe_and_an_id_stays_an_id(model: Path) -> None:
    recipes = model.parent / "recipes"
    recipes.mkdir()
    assert placed("../model", recipes) == placed("model", model.parent) == placed(str(model), recipes) == str(model)
    assert placed("Qwen/Qwen-Image-Edit-2511", recipes) == "Qwen/Qwen-Image-Edit-2511"
    assert placed("../nowhere", recipes) == str(model.parent / "nowhere")  # told as a folder that is missing
    assert placed("model", recipes) == "model"


def test_a_whole_model_has_no_problems_and_its_parts_load(model: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel

    assert problems(model) == []
    folder = DiffusersFolder(str(model))
    assert folder.config("transformer")["num_layers"] == 2
    loaded = folder.load("transformer", QwenImageTransformer2DModel, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert loaded.dtype == torch.bfloat16
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    expected = load_file(model / WEIGHTS)
    assert all(torch.equal(value, expected[name].bfloat16()) for name, value in loaded.state_dict().items())
    assert folder.load("scheduler", FlowMatchEulerDiscreteScheduler).config.shift_terminal == 0.02


def test_shards_are_the_same_model(model: Path) -> None:
    from diffusers import QwenImageTransformer2DModel

    expected = load_file(model / WEIGHTS)
    shard(model)
    assert problems(model) == []
    loaded = DiffusersFolder(str(model)).load("transformer", QwenImageTransformer2DModel, dtype=torch.float32)
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_a_missing_folder_or_part_is_named(model: Path, tmp_path: Path) -> None:
    assert problems(tmp_path / "nowhere")[0].startswith(f"model: '{tmp_path}/nowhere' is no folder and no Hub id")
    assert "is a file, not a folder" in problems(model / "model_index.json")[0]
    shutil.rmtree(model / "vae")
    shutil.rmtree(model / "scheduler")
    found = problems(model)
    assert len(found) == 2
    assert found[0] == f"{model}/vae/config.json: there is no such file"
    assert found[1] == f"{model}/scheduler/scheduler_config.json: there is no such file"
    (model / "model_index.json").unlink()
    assert problems(model) == [f"{model}/model_index.json: there is no such file"]


def test_parts_of_another_model_are_named_all_at_once(model: Path) -> None:
    index = json.loads((model / "model_index.json").read_text())
    index["transformer"][1] = "FluxTransformer2DModel"
    index["vea"] = index.pop("vae")
    (model / "model_index.json").write_text(json.dumps(index))
    first, second = problems(model)
    assert "transformer is a FluxTransformer2DModel" in first
    assert "it needs QwenImageTransformer2DModel" in first
    assert "names no part 'vae'; did you mean 'vea'?" in second


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_broken_index_is_named(model: Path, text: str) -> None:
    (model / "model_index.json").write_bytes(text.encode("latin-1"))
    (found,) = problems(model)
    assert found.startswith(f"{model}/model_index.json: is no {'text in UTF-8' if text == chr(255) else 'JSON'}")


def test_a_pickle_is_refused_and_never_opened(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n")
    (found,) = problems(model)
    assert "diffusion_pytorch_model.bin, which can run code" in found
    from diffusers import QwenImageTransformer2DModel

    with pytest.raises(CloraError, match="transformer cannot be loaded"):
        DiffusersFolder(str(model)).load("transformer", QwenImageTransformer2DModel, dtype=torch.float32)
    (model / WEIGHTS).write_bytes(b"\x80\x02cos\nsystem\n")
    (found,) = problems(model)
    assert f"{model / WEIGHTS}: this is a pickle" in found
    shutil.rmtree(model / "transformer")
    (model / "transformer").mkdir()
    (model / "transformer" / "config.json").write_text("{}")
    assert "there are no weights" in problems(model)[0]


def test_a_broken_download_is_named_by_its_file(model: Path) -> None:
    whole = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    assert f"{model / WEIGHTS}: truncated" in problems(model)[0]
    (model / WEIGHTS).write_bytes(whole[:100])
    assert f"{model / WEIGHTS}: truncated: the header claims" in problems(model)[0]
    (model / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 60) + whole[8:])
    assert "hostile" in problems(model)[0]


def test_lost_foreign_and_lying_shards_are_named(model: Path) -> None:
    index = shard(model)
    tree = json.loads(index.read_text())
    second = "diffusion_pytorch_model-00002-of-00002.safetensors"
    name = next(name for name, file in tree["weight_map"].items() if file == second)
    (index.parent / second).unlink()
    assert problems(model) == [f"{index.parent / second}: there is no such file"]
    tree["weight_map"][name] = "../vae/diffusion_pytorch_model.safetensors"
    tree["weight_map"]["img_in.lost"] = "diffusion_pytorch_model-00001-of-00002.safetensors"
    index.write_text(json.dumps(tree))
    found = problems(model)
    assert any(
        "'../vae/diffusion_pytorch_model.safetensors' is no safetensors file beside it" in line for line in found
    )
    assert any("1 tensors that its index promises are not there: 'img_in.lost'" in line for line in found)
    index.write_text('{"weight_map": 3}')
    assert "weight_map is no map" in problems(model)[0]


def test_the_digest_follows_configurations_and_weights(model: Path) -> None:
    folder = DiffusersFolder(str(model))
    first = folder.digest()
    assert folder.digest() == first
    (model / "README.md").write_text("not the model")
    (model / "transformer" / "notes.md").write_text("not the model")
    assert folder.digest() == first
    moved = shutil.copytree(model, model.parent / "elsewhere")
    assert DiffusersFolder(str(moved)).digest() == first
    tensors = load_file(model / WEIGHTS)
    tensors["proj_out.bias"] = tensors["proj_out.bias"] + 1
    save_file(tensors, model / WEIGHTS, {"format": "pt"})
    second = folder.digest()
    assert second != first
    config = json.loads((model / "vae" / "config.json").read_text())
    (model / "vae" / "config.json").write_text(json.dumps(config | {"latents_std": [1.0] * 16}))
    assert folder.digest() != second


def test_the_digest_of_a_large_file_reads_little_of_it(model: Path) -> None:
    large = model / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({"weight": torch.zeros(8 << 20)}, large)  # 32 MiB
    first = DiffusersFolder(str(model)).digest()
    with large.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\1\1\1")
    assert DiffusersFolder(str(model)).digest() != first


@pytest.fixture
def hub(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub that has the model under someone/tiny at a commit, and refuses files that it lacks."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    snapshot = model.parent / "models--someone--tiny" / "snapshots" / ("c0ffee" * 7)[:40]
    shutil.copytree(model, snapshot)

    def download(repo: str, name: str, *, subfolder: str | None, revision: str | None) -> str:
        assert repo == "someone/tiny"
        assert revision in (None, "main", snapshot.name)
        path = snapshot / (subfolder or "") / name
        if not path.exists():
            raise EntryNotFoundError("no such entry")
        assert path.suffix == ".json", "only small files are read before the run"
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    hub_commit.cache_clear()
    hub_file.cache_clear()
    return snapshot


def test_a_hub_id_is_checked_by_its_small_files_and_known_by_its_commit(hub: Path) -> None:
    folder = DiffusersFolder("someone/tiny")
    assert folder.folder is None
    assert folder.check(CLASSES) == []
    assert folder.config("transformer")["num_layers"] == 2
    assert folder.digest() == hub.name
    assert DiffusersFolder("someone/tiny", "main").digest() == hub.name
    hub_file.cache_clear()
    (hub / "vae" / "config.json").unlink()
    assert folder.check(CLASSES) == [
        "someone/tiny: vae/config.json cannot be had from the Hub: there is no such file in it"
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LocalEntryNotFoundError", "the Hub was not reached .*hf download nobody/nothing --local-dir"),
        ("OfflineModeIsEnabled", "the Hub was not reached .*hf download nobody/nothing --local-dir"),
        ("RepositoryNotFoundError", "there is no such model, or it is private"),
        ("GatedRepoError", "it is gated; accept its licence"),
        ("RevisionNotFoundError", "it has no such revision"),
    ],
)
def test_why_the_hub_gave_nothing(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    cls = getattr(errors, name)

    def refuse(*args: object, **kwargs: object) -> str:
        raise cls.__new__(cls)  # their constructors want an answer of the server

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    (found,) = DiffusersFolder("nobody/nothing").check(CLASSES)
    assert re.search(words, found), found

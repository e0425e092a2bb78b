"""The few-step schedule's shift follows the number of tokens as the model's own scheduler does; bad sizes are told."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import hostile_models as hostile
import pytest
from clora_qwen.backbone import QwenImageEdit
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_shift
from safetensors.torch import save_file

from clora.api import CloraError, ShiftsByTokens
from clora.cli import main
from clora.config.load import load_recipe
from clora.planning.shift import shift_of
from clora.plugin_system.discovery import discover

ROOT = Path(__file__).parents[3]
SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture
def model(tiny_qwen: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy whose files may be replaced."""
    return hostile.linked(tiny_qwen("2511"), tmp_path / "model")


@pytest.mark.parametrize("edition", ["original", "2511"])
@pytest.mark.parametrize("size", [(1024, 1024), (512, 512), (48, 64), (1328, 784), (2048, 2048)])
def test_the_shift_is_three_at_4096_tokens_and_moves_as_the_pipelines_mu(
    tiny_qwen: Callable[[str], Path], edition: str, size: tuple[int, int]
) -> None:
    backbone = QwenImageEdit(model=str(tiny_qwen(edition)))
    assert isinstance(backbone, ShiftsByTokens)
    found = backbone.shift_for(size)
    assert found is not None
    tokens = size[0] * size[1] // 256
    own = (256, 8192, 0.5, 0.9)  # the published scheduler's
    assert found.shift == pytest.approx(3 * math.exp(calculate_shift(tokens, *own) - calculate_shift(4096, *own)))
    assert (found.shift == 3.0) == (tokens == 4096)
    assert found.reason.startswith(f"{tokens:,} tokens")
    assert backbone.shift_for(None) is None


def test_a_scheduler_that_does_not_follow_the_tokens_takes_three(model: Path) -> None:
    with hostile.field_set(model / SCHEDULER, ("use_dynamic_shifting",), "false"):
        backbone = QwenImageEdit(model=str(model))
        for size in (None, (48, 64)):
            found = backbone.shift_for(size)
            assert found is not None
            assert found.shift == 3.0


def test_a_model_of_the_hub_is_not_fetched_for_its_shift(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is in the Hub's cache is read; else the shift is not known until `validate` has brought the small files."""
    import huggingface_hub

    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    backbone = QwenImageEdit(model="someone/a-model")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CloraError, match=r"^someone/a-model/scheduler/scheduler_config\.json is not on this disk yet$"):
        backbone.shift_for((1024, 1024))
    world = ROOT / "recipes/worlds/qwen_image_edit.yaml"
    loaded = load_recipe(ROOT / "recipes/collection.yaml", (), (), discover(), world=world)
    with pytest.raises(CloraError, match="is not on this disk yet; or give a number here"):
        shift_of(loaded.recipe.student, loaded.recipe.backbone, loaded.recipe.dataset)

    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps({"use_dynamic_shifting": True}))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: str(file))
    found = backbone.shift_for((1024, 1024))
    assert found is not None
    assert found.shift == pytest.approx(3.0)


@pytest.fixture
def recipe(model: Path, tmp_path: Path, drawn: Callable) -> Path:
    """A recipe without a mistake but that it states no size of its pictures; line 7 has the student."""
    import torch

    backbone = QwenImageEdit(model=str(model))
    tensors = {}
    for linear, (inputs, outputs) in ((name, backbone.shapes()[name]) for name in backbone.targets()):
        tensors[f"transformer.{linear}.lora_A.weight"] = torch.full((1, inputs), 0.1)
        tensors[f"transformer.{linear}.lora_B.weight"] = torch.full((outputs, 1), 0.1)
    save_file(tensors, tmp_path / "ink.safetensors")
    bank = [{"name": "ink", "lora": "ink.safetensors", "teacher_prompt": "edit it", "caption": "all ink"}]
    (tmp_path / "bank.yaml").write_text(json.dumps(bank))
    for folder in ("ink", "general"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            drawn(64, 48, seed=number).save(tmp_path / folder / f"{number}.png")
            (tmp_path / folder / f"{number}.txt").write_text(f"make it number {number}")
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"extends: {ROOT}/recipes/collection.yaml\n"
        f"backbone: {{use: qwen_image_edit, model: {os.path.relpath(model, tmp_path)}}}\n"
        "teachers: {use: bank, manifest: bank.yaml}\n"
        "metrics: null\n"
        "dataset: {use: pictures, effects: {ink: ink}, general: general}\n"
        "teacher: {steps: 2, shift: null}\n"
        "student: {rank: 2, alpha: 2, steps: 4, shift: null}\n"
    )
    return file


def validated(capsys: pytest.CaptureFixture[str], recipe: Path, *sets: str) -> tuple[int, str, str]:
    """What `clora validate` says."""
    code = main(["validate", str(recipe), *(word for each in sets for word in ("--set", each))])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


@pytest.mark.slow
def test_validate_tells_the_shift_or_what_to_give(
    recipe: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = validated(capsys, recipe)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if "student.shift" in line]
    assert "tiny.yaml:7:47: student.shift: null takes the shift that belongs to the number of tokens" in line
    assert line.endswith("which the dataset does not state: give dataset.size, or a number here, such as 3")

    code, out, err = validated(capsys, recipe, "dataset.size=[48, 64]")
    assert code == 0, err
    shift = 3 * math.exp(0.4 * (12 - 4096) / (8192 - 256))
    reason = "12 tokens: the paper's 3 for 4,096, moved as the model's own scheduler does"
    assert f"schedule        shift {shift:.4g} ({reason}), 4 levels: 1000 " in out

    code, out, err = validated(capsys, recipe, "student.shift=2")
    assert code == 0, err
    assert "shift 2 (the recipe's own), 4 levels: 1000 857.1 666.7 400\n" in out

    published = json.loads((model / SCHEDULER).read_text())
    for base, most, words in ((-20.0, 8192, "which must be between 0.01 and 100: give"), (-20.0, 257, "is none")):
        changed = {**published, "base_shift": base, "max_shift": 20.0, "max_image_seq_len": most}
        with hostile.replaced(model / SCHEDULER, partial(Path.write_text, data=json.dumps(changed))):
            code, out, err = validated(capsys, recipe, "dataset.size=[48, 64]")
        assert (code, out) == (2, "")
        assert "tiny.yaml:7:47: student.shift: null takes the shift that the backbone's rule gives" in err
        assert words in err
        assert all(len(line) < 500 for line in err.splitlines())
    assert main(["show", str(recipe)]) == 0
    assert "# schedule: its shift is not known: null takes the shift that belongs" in capsys.readouterr().out

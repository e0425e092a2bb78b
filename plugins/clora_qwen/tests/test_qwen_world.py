"""`recipes/worlds/qwen_image_edit.yaml` from a user's folder to pictures that stock tools make from the result.

The model is tiny and random; everything else is what a person with the real weights runs.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import numpy as np
import pytest
import torch
import yaml
from attrs import frozen
from clora_qwen.backbone import QwenImageEdit
from clora_qwen.pictures import pack
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from diffusers.schedulers import scheduling_flow_match_euler_discrete as scheduling
from PIL import Image
from safetensors.torch import load_file

from clora.api import StepRng
from clora.cli import main
from clora.lora_io.reader import LoraDelta, read_lora
from clora.lora_io.writer import write_lora

pytestmark = pytest.mark.slow  # for the run that most of them need

ROOT = Path(__file__).parents[3]
SIDE = 80
EFFECTS = ("ink", "wool")


@pytest.fixture(scope="module")
def small_pictures() -> Iterator[None]:
    """The stock pipeline at an area of 80 x 80 for its 1024 x 1024."""
    real = pipeline_qwenimage_edit_plus.calculate_dimensions

    def smaller(area: int, ratio: float) -> Any:
        return real(SIDE * SIDE if area == 1024 * 1024 else area, ratio)

    with patch.object(pipeline_qwenimage_edit_plus, "calculate_dimensions", smaller):
        yield


def users_folder(folder: Path, model: Path) -> Path:
    """What a person has: LoRAs with a manifest, a folder of pictures for each effect, a list of plain instructions."""
    random = torch.Generator().manual_seed(0)
    shapes = QwenImageEdit(model=str(model)).shapes()
    for name in EFFECTS:
        deltas = {
            module: LoraDelta(torch.randn(3, ins, generator=random), torch.randn(outs, 3, generator=random), 0.03)
            for module, (ins, outs) in shapes.items()
            if name == "wool" or ".attn." in module
        }
        write_lora(folder / f"loras/{name}.safetensors", deltas)
    bank = [
        {"id": name, "effect_prompt": f"make it {name}", "lora_path": f"loras/{name}.safetensors"} for name in EFFECTS
    ]
    (folder / "bank.yaml").write_text(yaml.safe_dump(bank))
    written = {"ink": "broad wet strokes on white paper", "wool": "soft felted wool with visible fibres"}
    (folder / "captions.yaml").write_text(yaml.safe_dump({name: {"caption": text} for name, text in written.items()}))
    lines = []
    for i in range(6):
        pixels = torch.randint(0, 256, (40, 60, 3), generator=random, dtype=torch.uint8).numpy()
        place = folder / ("general" if i < 2 else f"effects/{EFFECTS[i % 2]}") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC).save(place)
        if i < 2:
            lines.append({"image": f"general/{i}.png", "instruction": "make it darker", "split": ("train", "test")[i]})
    (folder / "general.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shutil.copyfile(ROOT / "recipes/worlds/qwen_image_edit.yaml", folder / "world.yaml")
    return folder


@frozen
class Finished:
    """A run of the whole recipe on a tiny model."""

    model: Path
    data: Path
    run: Path
    sets: tuple[str, ...]

    @property
    def export(self) -> Path:
        return self.run / "export"

    def prompt(self, effect: str) -> str:
        from safetensors import safe_open

        with safe_open(self.export / "lora.safetensors", "pt") as file:
            return json.loads(file.metadata()["clora"])["effects"][effect]["prompt"]


@pytest.fixture(scope="module")
def finished(tiny_qwen: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    model, data = tiny_qwen("2511"), users_folder(tmp_path_factory.mktemp("my"), tiny_qwen("2511"))
    changed = {
        "backbone.model": model, "backbone.side": SIDE, "backbone.memory.weights": "fp32", "dataset.size": "[32, 48]",
        "teacher.steps": 3, "teacher.slots": 1, "student.rank": 4, "student.alpha": 4, "student.steps": 4,
        "train.steps": 2, "train.lr": 0.05, "critic.updates": 2, "evaluate.images": 1, "evaluate.general_images": 1,
        "export.dtype": "float32", "seed": 3,
    }  # fmt: skip
    sets = tuple(word for key, value in changed.items() for word in ("--set", f"{key}={value}"))
    recipe = (str(ROOT / "recipes/collection.yaml"), "--world", str(data / "world.yaml"), *sets)
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(["run", *recipe, "--run-dir", str(run), "--quiet"]) == 0
    return Finished(model, data, run, recipe)


def test_every_stage_has_left_what_it_makes(finished: Finished) -> None:
    steps = [json.loads(line) for line in (finished.run / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert all(np.isfinite(list(step["losses"].values())).all() for step in steps)
    results = json.loads((finished.run / "evaluate/results.json").read_text())
    assert set(results["pictures"]) == set(EFFECTS)
    assert all(set(results["per_picture"][effect]) == {"to_teacher", "undone_rate"} for effect in EFFECTS)
    assert (finished.run / "report.html").stat().st_size > 10_000
    made = {path.relative_to(finished.export).as_posix() for path in finished.export.rglob("*") if path.is_file()}
    assert made >= {
        "lora.safetensors", "lora_comfyui.safetensors", "scheduler/scheduler_config.json", "README.md", "grid.png",
        "comfyui_workflow.json", "images/ink.png", "images/wool.png",
    }  # fmt: skip


def test_the_same_command_does_nothing_twice(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished.export / "lora.safetensors").stat().st_mtime_ns
    assert main(["run", *finished.sets, "--run-dir", str(finished.run)]) == 0
    assert (finished.export / "lora.safetensors").stat().st_mtime_ns == before
    assert "done before" in capsys.readouterr().err


def stock(finished: Finished) -> Any:
    import tiny_qwen as tiny

    pipe = tiny.pipeline(finished.model)
    assert isinstance(pipe, diffusers.QwenImageEditPlusPipeline)
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(finished.export, subfolder="scheduler")
    return pipe


def edited(pipe: Any, source: Path, prompt: str, seed: int) -> np.ndarray:
    """The stock pipeline's own call, with the noise that `clora sample --seed` draws."""
    image = Image.open(source).convert("RGB")
    rng, like = StepRng(seed).named("sample").named("0"), torch.empty(1, 16, 8, 12)
    fresh = iter([*(pack(rng.normal(f"noise/{i}", like)) for i in range(1, 4)), torch.zeros(1)])
    with patch.object(scheduling, "randn_tensor", side_effect=lambda *args, **kwargs: next(fresh)):
        made = pipe(
            image=image, prompt=prompt, num_inference_steps=4, true_cfg_scale=1.0,
            latents=pack(rng.normal("noise/0", like)), output_type="pil",
        )  # fmt: skip
    return np.asarray(made.images[0], dtype=float)


@pytest.fixture(scope="module")
def sampled(finished: Finished, small_pictures: None) -> tuple[Path, np.ndarray]:
    """A picture and what `clora sample` makes of it with the exported LoRA."""
    source, out = finished.data / "effects/ink/2.png", finished.run / "sampled.png"
    words = ["sample", str(finished.run), "--effect", "ink", "--image", str(source), "--out", str(out), "--seed", "7"]
    assert main(words) == 0
    return source, np.asarray(Image.open(out).convert("RGB"), dtype=float)


def test_stock_diffusers_makes_the_same_picture(finished: Finished, sampled: tuple[Path, np.ndarray]) -> None:
    source, ours = sampled
    pipe = stock(finished)
    without = edited(pipe, source, finished.prompt("ink"), 7)
    pipe.load_lora_weights(finished.export, weight_name="lora.safetensors")
    theirs = edited(pipe, source, finished.prompt("ink"), 7)
    assert ours.shape == theirs.shape == (64, 96, 3)
    assert np.abs(ours - theirs).max() <= 1  # levels of 255
    assert np.abs(without - theirs).mean() > 1  # the LoRA does something


def test_the_merged_transformer_makes_the_same_picture(
    finished: Finished, sampled: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    assert main(["export", str(finished.run), "--merge", "--out", str(tmp_path)]) == 0
    pipe = stock(finished)
    pipe.transformer = diffusers.QwenImageTransformer2DModel.from_pretrained(tmp_path, subfolder="transformer")
    source, ours = sampled
    assert np.abs(ours - edited(pipe, source, finished.prompt("ink"), 7)).max() <= 1


def test_peft_makes_the_same_picture(finished: Finished, sampled: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    from peft import PeftModel

    assert main(["export", str(finished.run), "--peft", "--out", str(tmp_path)]) == 0
    pipe = stock(finished)
    pipe.transformer = PeftModel.from_pretrained(pipe.transformer, tmp_path / "peft").merge_and_unload()
    source, ours = sampled
    assert np.abs(ours - edited(pipe, source, finished.prompt("ink"), 7)).max() <= 1


def test_comfyui_names_hold_the_students_delta(finished: Finished) -> None:
    tensors = load_file(finished.export / "lora_comfyui.safetensors")
    ours = read_lora(finished.export / "lora.safetensors").deltas
    assert len(ours) == 2 * 14
    for module, delta in ours.items():
        down = tensors.pop(f"diffusion_model.{module}.lora_A.weight").double()
        up = tensors.pop(f"diffusion_model.{module}.lora_B.weight").double()
        assert torch.allclose(up @ down, delta.scale * (delta.b.double() @ delta.a.double()), atol=1e-7)
    assert not tensors


def test_the_cards_own_code_runs(
    finished: Finished, sampled: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python of README.md as it stands, in the bundle's folder; the stock processor needs torchvision."""
    (code,) = re.findall(r"```python\n(.*?)```", (finished.export / "README.md").read_text(), re.DOTALL)
    shutil.copytree(finished.export, tmp_path / "bundle")
    shutil.copyfile(sampled[0], tmp_path / "bundle/source.png")
    monkeypatch.chdir(tmp_path / "bundle")
    asked: list[str] = []

    def from_pretrained(name: str, **kwargs: Any) -> Any:
        import tiny_qwen as tiny

        asked.append(name)
        return tiny.pipeline(Path(name))

    with patch.object(diffusers.QwenImageEditPlusPipeline, "from_pretrained", from_pretrained):
        exec(compile(code, "README.md", "exec"), {})
    assert asked == [str(finished.model)]
    assert Image.open("edited.png").size == (96, 64)


def test_the_workflow_is_a_graph_that_samples_as_trained(finished: Finished) -> None:
    graph = json.loads((finished.export / "comfyui_workflow.json").read_text())
    kinds = {node["class_type"]: node["inputs"] for node in graph.values()}
    links = [value for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert all(node in graph and output == 0 for node, output in links)
    assert kinds["LoraLoaderModelOnly"]["lora_name"] == "lora_comfyui.safetensors"
    # 6 tokens of 32 x 48 pixels: the paper's 3 moved by the scheduler's mu, 0.5 at 256 tokens and 0.9 at 8192
    assert kinds["ModelSamplingAuraFlow"]["shift"] == pytest.approx(3 * math.exp(0.4 * (6 - 4096) / (8192 - 256)))
    sampler = kinds["KSampler"]
    assert (sampler["steps"], sampler["cfg"], sampler["sampler_name"], sampler["scheduler"]) == (
        4,
        1.0,
        "lcm",
        "simple",
    )
    read = [node for node in graph.values() if node["inputs"].get("prompt") == finished.prompt("ink")]
    assert [node["class_type"] for node in read] == ["TextEncodeQwenImageEditPlus"]


def test_validate_tells_what_the_run_will_take(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", *finished.sets]) == 0
    told = capsys.readouterr().out
    assert "memory" in told
    assert "nothing stands in the way" in told

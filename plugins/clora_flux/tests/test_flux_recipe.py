"""The whole recipe on the tiny FLUX: teachers, one cycle of CollectionLoRA, export, pictures; then a stock reload."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from textwrap import dedent
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from clora_flux.backbone import FluxKontext
from clora_flux.sizes import code, fit
from clora_flux.tokens import pack
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline
from diffusers.pipelines.flux import pipeline_flux_kontext
from diffusers.schedulers import scheduling_flow_match_euler_discrete as scheduling
from PIL import Image
from safetensors import safe_open

from clora.api import StepRng
from clora.cli import main
from clora.lora_io.reader import LoraDelta, read_lora
from clora.lora_io.writer import write_lora

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recipe(component: FluxKontext, tmp_path: Path) -> Path:
    """A recipe with two random teachers and a few pictures of 32 x 48."""
    generator = torch.Generator().manual_seed(0)
    names = ["ink", "wool"]
    for name in names:
        deltas = {
            module: LoraDelta(torch.randn(2, ins, generator=generator), torch.randn(outs, 2, generator=generator), 0.02)
            for module, (ins, outs) in component.shapes().items()
            if name == "wool" or ".attn." in module
        }
        write_lora(tmp_path / f"{name}.safetensors", deltas)
    bank = [
        {"name": name, "lora": f"{name}.safetensors", "teacher_prompt": "turn it", "caption": f"a picture of {name}"}
        for name in names
    ]
    (tmp_path / "bank.yaml").write_text(json.dumps(bank))
    for i in range(4):
        pixels = torch.randint(0, 256, (32, 48, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{i}.png")
    splits = [(i, "train" if i < 2 else "test") for i in range(4)]
    effects = [{"source": f"{i}.png", "effect": name, "split": split} for name in names for i, split in splits]
    general = [{"source": f"{i}.png", "instruction": "make it", "split": split} for i, split in splits]
    (tmp_path / "effects.jsonl").write_text("\n".join(map(json.dumps, effects)))
    (tmp_path / "general.jsonl").write_text("\n".join(map(json.dumps, general)))
    file = tmp_path / "tiny.yaml"
    file.write_text(
        dedent(f"""\
        extends: clora:collection.yaml
        world: clora:worlds/flux_kontext.yaml
        title: one cycle on a tiny FLUX
        backbone:
          use: flux_kontext
          model: {component.model}
          memory: {{weights: fp32, gradient_checkpointing: true}}
          max_sequence_length: 24
          side: 40
        dataset: {{use: jsonl, effects: effects.jsonl, general: general.jsonl, size: [32, 48]}}
        teachers: {{use: bank, manifest: bank.yaml}}
        metrics: null
        device: cpu
        teacher: {{steps: 2, guidance_scale: 2.0}}
        student: {{rank: 2, alpha: 2, steps: 4}}
        critic: {{updates: 1}}
        train: {{steps: 1, batch_size: 2, lr: 0.2}}
        export: {{dtype: float32}}
        evaluate: {{images: 1, general_images: 1}}
        """)
    )
    return file


@pytest.mark.slow
def test_a_recipe_runs_and_its_lora_samples_the_same_in_the_stock_pipeline(
    recipe: Path, component: FluxKontext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "made.png"
    assert main(["run", str(recipe), "--runs", str(runs)]) == 0
    (run,) = runs.glob("tiny-*")
    (step,) = map(json.loads, (run / "steps.jsonl").read_text().splitlines())
    assert {"bs_dmd", "ts_dmd", "ta_fm"} <= set(step["losses"])
    assert all(math.isfinite(loss) for loss in step["losses"].values())
    image = tmp_path / "3.png"
    assert main(["sample", str(run), "--effect", "ink", "--image", str(image), "--out", str(out), "--seed", "7"]) == 0

    stock = FluxKontextPipeline.from_pretrained(component.model)
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(run / "export/scheduler")
    asked = {
        "image": Image.open(image).convert("RGB"),
        "prompt": _prompt(run / "export/lora.safetensors", "ink"),
        "max_sequence_length": 24,
        "guidance_scale": 2.5,
        "num_inference_steps": 4,
        "height": 32,
        "width": 48,
        "max_area": 32 * 48,
        "_auto_resize": False,
    }
    without = np.asarray(_stock_picture(stock, asked), dtype=float)
    stock.load_lora_weights(run / "export/lora.safetensors")
    theirs = np.asarray(_stock_picture(stock, asked), dtype=float)
    ours = np.asarray(Image.open(out).convert("RGB"), dtype=float)
    assert ours.shape == (32, 48, 3)
    assert np.abs(ours - theirs).max() <= 1  # levels of 255
    assert np.abs(ours - without).mean() > 1
    assert set(read_lora(run / "export/lora.safetensors").deltas) == set(component.targets())

    large = Image.open(image).resize((99, 64), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.png")
    words = ["sample", str(run), "--effect", "ink", "--image", str(tmp_path / "large.png"), "--out", str(out)]
    assert main([*words, "--seed", "7"]) == 0
    monkeypatch.chdir(run / "export")
    theirs = np.asarray(_cards_picture(run / "export", large), dtype=float)
    ours = np.asarray(Image.open(out).convert("RGB"), dtype=float)
    assert ours.shape == theirs.shape == (32, 48, 3)
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("side", [None, 40, 512])
@pytest.mark.parametrize("size", [(64, 96), (96, 33), (1000, 1003), (300, 1999)])
def test_the_cards_code_resizes_as_the_backbone_does(side: int | None, size: tuple[int, int]) -> None:
    height, width = size
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    names = {"source": Image.fromarray(pixels.numpy())}
    exec("\n".join(code(side, 16)), names)
    ours = fit(pixels.permute(2, 0, 1)[None].float() / 127.5 - 1, side, 16)
    theirs = torch.from_numpy(np.array(names["source"])).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert torch.equal(ours, theirs)


def _cards_picture(export: Path, source: Image.Image) -> Image.Image:
    """What the Python of README.md makes of a picture, in float32, with the noise of `clora sample --seed 7`."""
    (python,) = re.findall(r"```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)
    source.save(export / "source.png")
    rng, like = StepRng(7).named("sample").named("0"), torch.empty(1, 16, 4, 6)
    fresh = iter([*(pack(rng.normal(f"noise/{i}", like)) for i in range(1, 4)), torch.zeros(1)])
    real = FluxKontextPipeline.from_pretrained

    def precise(name: str, **_: Any) -> Any:
        return real(name)

    with (
        patch.object(FluxKontextPipeline, "from_pretrained", precise),
        patch.object(pipeline_flux_kontext, "randn_tensor", side_effect=lambda *a, **k: rng.normal("noise/0", like)),
        patch.object(scheduling, "randn_tensor", side_effect=lambda *a, **k: next(fresh)),
    ):
        exec(compile(python, "README.md", "exec"), {})
    return Image.open(export / "edited.png").convert("RGB")


def _prompt(lora: Path, effect: str) -> str:
    with safe_open(lora, "pt") as file:
        return json.loads(file.metadata()["clora"])["effects"][effect]["prompt"]


def _stock_picture(stock: FluxKontextPipeline, asked: dict[str, Any]) -> Image.Image:
    """The stock pipeline's picture with the noise that `clora sample --seed 7` draws."""
    rng, like = StepRng(7).named("sample").named("0"), torch.empty(1, 16, 4, 6)
    fresh = iter([*(pack(rng.normal(f"noise/{i}", like)) for i in range(1, 4)), torch.zeros(1)])
    with patch.object(scheduling, "randn_tensor", side_effect=lambda *args, **kwargs: next(fresh)):
        return stock(latents=pack(rng.normal("noise/0", like)), **asked).images[0]

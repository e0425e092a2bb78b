"""A whole recipe on a tiny Qwen-Image-Edit, and its LoRA in diffusers' own pipeline."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from clora_qwen.backbone import QwenImageEdit
from clora_qwen.pictures import pack, to_image
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import scheduling_flow_match_euler_discrete as scheduling
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from clora.api import NetworkMemory, StepRng
from clora.cli import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def backbone(tiny_qwen: Callable[[str], Path]) -> QwenImageEdit:
    return QwenImageEdit(model=str(tiny_qwen("2511")), side=128, memory=NetworkMemory(weights="fp32"))


@pytest.fixture
def recipe(backbone: QwenImageEdit, tmp_path: Path, drawn: Callable[..., Image.Image]) -> Path:
    """Two random teachers, one of them on the linears around the blocks too, and three pictures in each folder."""
    random = torch.Generator().manual_seed(0)
    bank = []
    for name, linears in (("ink", backbone.targets()), ("wool", tuple(backbone.shapes()))):
        tensors: dict[str, torch.Tensor] = {}
        for linear in linears:
            inputs, outputs = backbone.shapes()[linear]
            tensors[f"transformer.{linear}.lora_A.weight"] = 0.1 * torch.randn(3, inputs, generator=random)
            tensors[f"transformer.{linear}.lora_B.weight"] = 0.1 * torch.randn(outputs, 3, generator=random)
        save_file(tensors, tmp_path / f"{name}.safetensors")
        bank.append(
            {"name": name, "lora": f"{name}.safetensors", "teacher_prompt": "edit it", "caption": f"all {name}"}
        )
    (tmp_path / "bank.yaml").write_text(json.dumps(bank))
    for folder in ("ink", "wool", "general"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            drawn(70, 50, seed=number).save(tmp_path / folder / f"{number}.png")
            if folder == "general":
                (tmp_path / folder / f"{number}.txt").write_text(f"make it number {number}")
    file = tmp_path / "tiny.yaml"
    file.write_text(
        dedent(f"""\
        extends: {ROOT}/recipes/collection.yaml
        title: two cycles on a tiny Qwen-Image-Edit
        backbone:
          use: qwen_image_edit
          model: {os.path.relpath(backbone.model, tmp_path)}
          side: 128
          memory: {{weights: fp32, gradient_checkpointing: true}}
        dataset: {{use: pictures, effects: {{ink: ink, wool: wool}}, general: general, size: [48, 64]}}
        teachers: {{use: bank, manifest: bank.yaml}}
        metrics: null
        device: cpu
        teacher: {{steps: 2, guidance_scale: 4.0, shift: null}}
        student: {{rank: 2, alpha: 2, steps: 4, ema: null}}
        train: {{steps: 2, batch_size: 2, lr: 0.1, warmup_steps: 0}}
        warm_start: {{updates: 2}}
        evaluate: {{images: 1, general_images: 1}}
        """)
    )
    return file


@pytest.mark.slow
@pytest.mark.usefixtures("small_pictures")
def test_two_cycles_make_a_lora_that_the_stock_pipeline_samples_alike(
    recipe: Path, backbone: QwenImageEdit, drawn: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_qwen as tiny

    folder = recipe.parent
    assert main(["run", str(recipe), "--runs", str(folder / "runs")]) == 0
    (run,) = (folder / "runs").glob("tiny-*")
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    assert {"bs_dmd", "ts_dmd", "ta_fm"} <= {name for step in steps for name in step["losses"]}
    assert all(math.isfinite(loss) for step in steps for loss in step["losses"].values())

    source, made = folder / "source.png", folder / "made.png"
    fitted = backbone.load(torch.device("cpu")).fit(_tensor(drawn(313, 200, seed=7)))
    to_image(fitted[0]).save(source)
    asked = ["--effect", "wool", "--image", str(source), "--out", str(made), "--seed", "5"]
    assert main(["sample", str(run), *asked]) == 0
    ours = np.asarray(Image.open(made), dtype=float)
    with safe_open(run / "export/lora.safetensors", "pt") as file:
        prompt = json.loads(file.metadata()["clora"])["effects"]["wool"]["prompt"]
        trained = {name.removeprefix("transformer.").rpartition(".lora_")[0] for name in file.keys()}  # noqa: SIM118
    assert trained == set(backbone.targets())

    stock = tiny.pipeline(Path(backbone.model))
    stock.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(run / "export/scheduler")

    def theirs() -> np.ndarray:
        rng, like = StepRng(5).named("sample").named("0"), torch.empty(1, 16, 12, 20)
        fresh = iter([pack(rng.normal(f"noise/{i}", like)) for i in range(1, 5)])
        monkeypatch.setattr(scheduling, "randn_tensor", lambda *args, **kwargs: next(fresh))
        picture = stock(
            Image.open(source), prompt, num_inference_steps=4, latents=pack(rng.normal("noise/0", like)),
            **backbone.publication().call,
        )  # fmt: skip
        return np.asarray(picture.images[0], dtype=float)

    without = theirs()
    stock.load_lora_weights(run / "export/lora.safetensors")
    assert ours.shape == (96, 160, 3)
    assert np.abs(ours - theirs()).max() <= 1  # levels of 255
    assert np.abs(ours - without).mean() > 1


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1

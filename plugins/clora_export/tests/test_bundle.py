"""A run's bundle read back by others' readers: diffusers' scheduler, a plain reader of ComfyUI's names, YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import yaml
from attrs import evolve
from clora_export.bundle import Bundle
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from clora.api import (
    EffectSamples,
    Evaluated,
    ExportedLora,
    ExportedSampler,
    FileContents,
    LoraDelta,
    Measured,
    Publication,
    Quantity,
    Schedule,
    write_lora,
)
from clora.lora_io.reader import read_lora
from clora.planning.plan import Plan
from clora.testing.conformance import problems_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def lora(plan: Plan, deltas: dict[str, LoraDelta], tmp_path_factory: pytest.TempPathFactory) -> ExportedLora:
    """The LoRA as the core writes it."""
    made = plan.exported(tmp_path_factory.mktemp("bundle") / "lora.safetensors")
    write_lora(made.path, deltas, made.header)
    return made


def put(files: Mapping[str, FileContents], out: Path) -> None:
    """Write what an exporter gave, as the core does."""
    for name, contents in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(contents):
            contents(path)
        else:
            path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())


@pytest.fixture(scope="module")
def bundle(lora: ExportedLora) -> Path:
    put(Bundle().export(lora), lora.path.parent)
    return lora.path.parent


def change(delta: LoraDelta) -> torch.Tensor:
    return delta.scale * (delta.b.double() @ delta.a.double())


def test_diffusers_scheduler_has_the_students_levels(bundle: Path) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(bundle, subfolder="scheduler")
    for steps in (1, 4, 5, 8):
        scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)], mu=0.7)
        expected = [*Schedule.shifted(steps, 3.0).sigmas, 0.0]
        assert scheduler.sigmas.tolist() == pytest.approx(expected, abs=1e-6)


def test_diffusers_scheduler_steps_as_the_student_does(bundle: Path) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(bundle, subfolder="scheduler")
    scheduler.set_timesteps(sigmas=[1.0, 0.5])
    x, velocity = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    torch.manual_seed(11)
    noise = torch.randn_like(x)
    torch.manual_seed(11)
    made = scheduler.step(velocity, scheduler.timesteps[0], x).prev_sample
    assert torch.allclose(made, (1 - 0.75) * (x - velocity) + 0.75 * noise, atol=1e-6)


def test_a_plain_reader_of_comfyui_names_finds_the_delta(bundle: Path, deltas: dict[str, LoraDelta]) -> None:
    tensors = load_file(bundle / "lora_comfyui.safetensors")
    for module, delta in deltas.items():
        up = tensors.pop(f"diffusion_model.{module}.lora_B.weight").double()
        down = tensors.pop(f"diffusion_model.{module}.lora_A.weight").double()
        # ComfyUI's strength is alpha / rank, and 1 where there is no alpha
        assert torch.allclose(up @ down, change(delta), atol=1e-6)
    assert not tensors


def front(bundle: Path) -> dict:
    _, block, _ = (bundle / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(block)


def test_the_card_names_every_effect_with_its_words(plan: Plan, bundle: Path) -> None:
    said = front(bundle)
    assert [entry["text"] for entry in said["widget"]] == [prompts.student for prompts in plan.prompts.values()]
    assert {"lora", "diffusers"} <= set(said["tags"])
    assert "base_model" not in said  # the emoji base is on no hub
    assert "grid.png" not in (bundle / "README.md").read_text()  # no pictures were made yet


def samples(count: int = 6) -> Evaluated:
    random = torch.Generator().manual_seed(0)

    def pictures() -> torch.Tensor:
        return torch.randint(0, 256, (count, 3, 32, 32), generator=random, dtype=torch.uint8)

    names = tuple(map(str, range(count)))
    effects = {name: EffectSamples(names, pictures(), pictures()) for name in ("duotone_ocean", "thermal")}
    return Evaluated(Measured({"distance": 0.125}, {"distance": Quantity("lower")}), effects)


def test_pictures_and_numbers_come_with_the_evaluation(lora: ExportedLora, tmp_path: Path) -> None:
    evaluated = samples()
    put(Bundle().illustrate(lora, evaluated), tmp_path)
    said = front(tmp_path)
    assert [entry["output"]["url"] for entry in said["widget"]] == ["images/duotone_ocean.png", "images/thermal.png"]
    assert "| distance | 0.125 |" in (tmp_path / "README.md").read_text()
    strip = Image.open(tmp_path / "images/thermal.png")
    assert strip.size == (4 * 264 - 8, 2 * 264 - 8)  # four subjects, source above result
    middle = tuple(evaluated.samples["thermal"].result[1, :, 4, 5].tolist())
    assert strip.getpixel((264 + 5 * 8 + 3, 264 + 4 * 8 + 3)) == middle
    assert Image.open(tmp_path / "grid.png").width > strip.width


def test_the_keys_say_how_many_pictures_and_how_large(lora: ExportedLora, tmp_path: Path) -> None:
    put(Bundle(pictures=2, side=64).illustrate(lora, samples()), tmp_path)
    assert Image.open(tmp_path / "images/thermal.png").size == (2 * 72 - 8, 2 * 72 - 8)
    put(Bundle(pictures=9, side=16).illustrate(lora, samples(count=3)), tmp_path)
    assert Image.open(tmp_path / "images/thermal.png").size == (3 * 24 - 8, 2 * 24 - 8)


@pytest.mark.parametrize("keys", [{"pictures": 0}, {"pictures": 101}, {"side": 15}, {"side": 2049}])
def test_a_number_out_of_bounds_is_refused(keys: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be between"):
        Bundle(**keys)


def test_without_comfyui_no_file_and_no_line_of_the_card_is_about_it(lora: ExportedLora) -> None:
    files = Bundle(comfyui=False).export(evolve(lora, publication=KNOWN))
    assert set(files) == {"scheduler/scheduler_config.json", "README.md"}
    assert "ComfyUI" not in str(files["README.md"])


#: a base that stock tools know
KNOWN = Publication(
    "someone/edit-base",
    "edit-base",
    "EditPipeline",
    {"true_cfg_scale": 1.0},
    workflows={
        "comfyui": lambda lora, prompt, steps, shift: {"1": {"lora": lora, "text": prompt, "at": [steps, shift]}}
    },
)


def test_a_known_base_has_code_and_a_workflow_with_the_students_sampler(lora: ExportedLora) -> None:
    files = Bundle().export(evolve(lora, publication=KNOWN))
    text = str(files["README.md"])
    assert 'base_model: "someone/edit-base"' in text
    assert "EditPipeline.from_pretrained('someone/edit-base'" in text
    assert "    true_cfg_scale=1.0,\n" in text
    compile(text.split("```python\n")[1].split("```")[0], "README.md", "exec")
    graph = json.loads(str(files["comfyui_workflow.json"]))
    assert graph["1"] == {"lora": "lora_comfyui.safetensors", "text": lora.effects[0].prompt, "at": [5, 3.0]}


def test_a_lora_that_is_sampled_as_a_teacher_is_told_so_and_has_no_few_step_files(lora: ExportedLora) -> None:
    teacher = ExportedSampler("teacher", 40, 4.0, None, ())
    files = Bundle().export(evolve(lora, sampler=teacher, rank=None, publication=KNOWN))
    assert set(files) == {"lora_comfyui.safetensors", "README.md"}
    text = str(files["README.md"])
    assert "2 effects in one LoRA: 40 steps, guidance 4." in text
    assert "few-step" not in text
    assert "scheduler" not in text.lower()


def test_the_copy_has_the_loras_type_and_header(
    lora: ExportedLora, deltas: dict[str, LoraDelta], tmp_path: Path
) -> None:
    write_lora(tmp_path / "lora.safetensors", deltas, lora.header, dtype=torch.bfloat16)
    made = evolve(
        lora, path=tmp_path / "lora.safetensors", weights=lambda: read_lora(tmp_path / "lora.safetensors").deltas
    )
    put(Bundle().export(made), tmp_path)
    with safe_open(tmp_path / "lora_comfyui.safetensors", "pt") as file:
        assert dict(file.metadata())["clora"] == lora.header["clora"]
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.bfloat16}  # noqa: SIM118 - no mapping


def test_it_keeps_the_rules_for_components() -> None:
    assert problems_of("exporters", Bundle()) == []

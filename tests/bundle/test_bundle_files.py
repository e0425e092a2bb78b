"""A run's bundle read back by others' readers: diffusers' scheduler, PEFT, a plain reader of ComfyUI's names, YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file, save_file

from clora.bundle.bundle import add_pictures, write_bundle
from clora.bundle.merged import write_merged
from clora.bundle.peft_folder import write_peft
from clora.config.load import load_recipe
from clora.diffusion.flow import Schedule
from clora.errors import CloraError
from clora.inference.session import ModelSession
from clora.lora_io.reader import LoraDelta
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.runs.files.results import Results

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plan() -> Plan:
    sets = ["effects=[duotone_ocean, thermal]", "student.steps=5", "student.shift=3"]
    return make_plan(load_recipe(ROOT / "recipes/quickstart.yaml", (), sets, discover()), thorough=False)


@pytest.fixture(scope="module")
def deltas(plan: Plan) -> dict[str, LoraDelta]:
    """Random factors on every linear of the emoji base, ranks and strengths of two kinds."""
    random = torch.Generator().manual_seed(3)
    made = {}
    for i, (module, (inputs, outputs)) in enumerate(plan.recipe.backbone.shapes().items()):
        rank = 3 + i % 2
        a = torch.randn(rank, inputs, generator=random) * 0.1
        made[module] = LoraDelta(a, torch.randn(outputs, rank, generator=random) * 0.1, 0.5 + i % 2)
    return made


@pytest.fixture(scope="module")
def bundle(plan: Plan, deltas: dict[str, LoraDelta], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle")
    write_bundle(plan, out, deltas)
    return out


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


def test_peft_loads_its_folder(plan: Plan, deltas: dict[str, LoraDelta], tmp_path: Path) -> None:
    from peft import PeftModel

    write_peft(tmp_path / "peft", deltas)
    network = plan.recipe.backbone.load(torch.device("cpu")).network
    before = {module: network.get_submodule(module).weight.double().clone() for module in deltas}
    merged = PeftModel.from_pretrained(network, tmp_path / "peft").merge_and_unload()
    for module, delta in deltas.items():
        after = merged.get_submodule(module).weight.double()
        assert torch.allclose(after - before[module], change(delta), atol=1e-5), module


def test_a_merge_is_the_base_plus_the_delta(plan: Plan, deltas: dict[str, LoraDelta], tmp_path: Path) -> None:
    files = plan.recipe.backbone.weight_files()
    told: list[str] = []
    merged = write_merged(files, deltas, tmp_path / "transformer", told.append)
    before = load_file(files / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    assert set(before) == set(after)
    assert merged.linears == len(deltas)
    assert len(told) == 1
    errors, changes = 0.0, 0.0
    for name, tensor in after.items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module in deltas:
            exact = before[name].double() + change(deltas[module])
            assert torch.allclose(tensor.double(), exact, rtol=2**-8, atol=1e-6)
            errors += float((tensor.double() - exact).square().sum())
            changes += float(change(deltas[module]).square().sum())
        else:
            assert torch.equal(tensor, before[name])
    assert merged.lost == pytest.approx((errors / changes) ** 0.5, rel=1e-2)
    assert json.loads((tmp_path / "transformer/config.json").read_text())["num_layers"] == 6


def sharded(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = {"one.weight": torch.eye(4), "two.weight": torch.eye(4), "two.bias": torch.ones(4)}
    names = {"one.weight": "a.safetensors", "two.weight": "b.safetensors", "two.bias": "b.safetensors"}
    for file in sorted(set(names.values())):
        save_file({key: weights[key] for key, where in names.items() if where == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def test_a_merge_goes_shard_by_shard(tmp_path: Path) -> None:
    files = sharded(tmp_path / "base")
    delta = LoraDelta(torch.ones(1, 4), torch.ones(4, 1), 2.0)
    write_merged(files, {"two": delta}, tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out/b.safetensors")["two.weight"], torch.eye(4) + 2)
    assert torch.equal(load_file(tmp_path / "out/a.safetensors")["one.weight"], torch.eye(4))
    assert (tmp_path / "out/model.safetensors.index.json").is_file()


def test_a_merge_that_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    files = sharded(tmp_path / "base")
    delta = LoraDelta(torch.ones(1, 4), torch.ones(4, 1), 1.0)
    with pytest.raises(CloraError, match="no weights of 1 linears of the LoRA, such as three"):
        write_merged(files, {"two": delta, "three": delta}, tmp_path / "out")
    save_file({"one.weight": torch.zeros(4, 4, dtype=torch.int8)}, files / "a.safetensors")
    with pytest.raises(CloraError, match=r"one\.weight is torch\.int8 \[4, 4\]; a merge needs unquantised"):
        write_merged(files, {"one": delta}, tmp_path / "out")
    (files / "b.safetensors").unlink()
    with pytest.raises(CloraError, match=r"names 'b\.safetensors', which is not in its folder"):
        write_merged(files, {"one": delta}, tmp_path / "out")
    (files / "model.safetensors.index.json").write_text('{"weight_map": {"one.weight": "../a.safetensors"}}')
    with pytest.raises(CloraError, match="which is not in its folder"):
        write_merged(files, {"one": delta}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def front(bundle: Path) -> dict:
    _, block, _ = (bundle / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(block)


def test_the_card_names_every_effect_with_its_words(plan: Plan, bundle: Path) -> None:
    said = front(bundle)
    assert [entry["text"] for entry in said["widget"]] == [prompts.student for prompts in plan.prompts.values()]
    assert {"lora", "diffusers"} <= set(said["tags"])
    assert "base_model" not in said  # the emoji base is on no hub
    assert "grid.png" not in (bundle / "README.md").read_text()  # no pictures were made yet


def test_pictures_and_numbers_come_with_the_evaluation(plan: Plan, bundle: Path) -> None:
    random = torch.Generator().manual_seed(0)
    pictures = {
        f"{card.name}.{role}": torch.randint(0, 256, (6, 3, 32, 32), generator=random, dtype=torch.uint8)
        for card in plan.cards
        for role in ("source", "student")
    }
    add_pictures(plan, bundle, pictures, Results(values={"distance": 0.125}))
    said = front(bundle)
    assert [entry["output"]["url"] for entry in said["widget"]] == ["images/duotone_ocean.png", "images/thermal.png"]
    assert "| distance | 0.125 |" in (bundle / "README.md").read_text()
    strip = Image.open(bundle / "images/thermal.png")
    assert strip.size == (4 * 264 - 8, 2 * 264 - 8)  # four subjects, source above result
    middle = tuple(pictures["thermal.student"][1, :, 4, 5].tolist())
    assert strip.getpixel((264 + 5 * 8 + 3, 264 + 4 * 8 + 3)) == middle
    assert Image.open(bundle / "grid.png").width > strip.width


def test_weights_are_stored_as_the_recipe_says(plan: Plan, deltas: dict[str, LoraDelta], tmp_path: Path) -> None:
    write_bundle(plan, tmp_path, deltas, torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "lora.safetensors").values()} == {torch.bfloat16}


def test_the_merged_base_answers_as_the_lora_does(plan: Plan, deltas: dict[str, LoraDelta], tmp_path: Path) -> None:
    from attrs import evolve

    from clora.adapters.adapter import Adapter
    from clora.contracts.values import Conditions

    small = {name: LoraDelta(d.a, d.b, d.scale * 0.5) for name, d in deltas.items()}
    write_merged(plan.recipe.backbone.weight_files(), small, tmp_path / "transformer")
    session = ModelSession(plan)
    session.adapted.add("lora", Adapter.of({name: (d.a, d.b, d.scale) for name, d in small.items()}))
    other = evolve(plan.recipe.backbone, weights=tmp_path / "transformer").load(torch.device("cpu"))
    random = torch.Generator().manual_seed(1)
    x, source = torch.randn(2, 48, 8, 8, generator=random), torch.randn(2, 48, 8, 8, generator=random)
    words = other.encode_prompts(["make it blue", "turn it"], source)
    conditions, sigma = Conditions(words.text, words.mask, source), torch.tensor([0.9, 0.3])
    with torch.no_grad(), session.adapted.rows(["lora"] * 2):
        lora = session.backbone.velocity(x, sigma, conditions)
    with torch.no_grad():
        merged = other.velocity(x, sigma, conditions)
    with torch.no_grad(), session.adapted.rows([None] * 2):
        bare = session.backbone.velocity(x, sigma, conditions)
    assert (merged - lora).norm() < 0.1 * (lora - bare).norm()  # what bfloat16 rounds off

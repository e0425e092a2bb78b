"""A LoRA as a PEFT folder and folded into its base's weights, read back by PEFT and by the base itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from clora_export.merged import write_merged
from clora_export.peft_folder import write_peft
from safetensors.torch import load_file, save_file

from clora.errors import CloraError
from clora.inference.session import ModelSession
from clora.lora_io.reader import LoraDelta
from clora.planning.plan import Plan

ROOT = Path(__file__).parents[3]


def change(delta: LoraDelta) -> torch.Tensor:
    return delta.scale * (delta.b.double() @ delta.a.double())


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

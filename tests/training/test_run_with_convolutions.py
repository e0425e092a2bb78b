"""A whole run of a third party's backbone that names a convolution for LoRA: trained, exported, read, merged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from distribution import write_distribution
from safetensors.torch import load_file, save_file
from two_effects import TwoEffects

from clora import cli
from clora.lora_io.reader import read_lora
from clora.planning.plan import Plan
from clora.runs.run_dir import RunDir

pytestmark = pytest.mark.slow  # for the run that most of them need

SOURCE = """
from pathlib import Path

import torch
from attrs import frozen
from clora_emoji import network
from clora_emoji.backbone import EmojiBackbone
from clora_emoji.loaded import LoadedEmoji
from clora_emoji.model_config import BASE

from clora.api import Component, Convolution, hookimpl


class Loaded(LoadedEmoji):
    def velocity(self, x_sigma, sigma, conditions):
        return super().velocity(x_sigma, sigma, conditions) + self.network.mix(x_sigma)


@frozen
class Mixing(EmojiBackbone):
    def shapes(self):
        return {**super().shapes(), "mix": Convolution(48, 48, (3, 3))}

    def targets(self):
        return tuple(name for name in self.shapes() if name == "mix" or name.endswith("to_q"))

    def load(self, device):
        from safetensors.torch import load_file

        transformer = network.load(BASE)
        transformer.mix = torch.nn.Conv2d(48, 48, 3, padding=1, bias=False)
        tensors = load_file(self.weights / "diffusion_pytorch_model.safetensors")
        transformer.mix.weight = torch.nn.Parameter(tensors["mix.weight"].float())
        return Loaded(transformer.eval(), device)


@hookimpl
def clora_backbones():
    return [Component("mixing", Mixing)]
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoEffects]:
    """A recipe on the backbone `mixing`, whose weights are the emoji base's and a convolution."""
    from clora_emoji.model_config import BASE

    site = tmp_path_factory.mktemp("site")
    (site / "mixing_parts.py").write_text(SOURCE)
    write_distribution(site, "mixing", {"mixing": "mixing_parts"}, "0.1")
    base = tmp_path_factory.mktemp("base")
    tensors = load_file(BASE / "diffusion_pytorch_model.safetensors")
    draw = torch.Generator().manual_seed(0)
    mix = (0.01 * torch.randn(48, 48, 3, 3, generator=draw)).to(torch.bfloat16)
    save_file({**tensors, "mix.weight": mix}, base / "diffusion_pytorch_model.safetensors")
    (base / "config.json").write_text((BASE / "config.json").read_text())
    sys.path.insert(0, str(site))
    yield TwoEffects((f"backbone={{use: mixing, weights: {base}}}", "warm_start.updates=1"))
    sys.path.remove(str(site))
    sys.modules.pop("mixing_parts", None)


@pytest.fixture(scope="module")
def run(small: TwoEffects, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return small.run(tmp_path_factory.mktemp("runs") / "run", until_export=False)


def test_its_convolution_is_trained_and_exported_as_one(run: RunDir, small: TwoEffects) -> None:
    plan: Plan = small.plan()
    read = read_lora(run.lora, plan.recipe.backbone.shapes()).deltas
    assert read["mix"].kernel == (3, 3)
    assert float(read["mix"].weight().float().abs().sum()) > 0
    assert load_file(run.lora)["transformer.mix.lora_A.weight"].shape == (4, 48, 3, 3)
    assert set(read) == set(plan.recipe.backbone.targets())
    started = load_file(run.path / "warm_start" / "lora.safetensors")
    assert started["transformer.mix.lora_B.weight"].shape == (48, 4, 1, 1)


def test_the_same_recipe_gives_the_same_bits(run: RunDir, small: TwoEffects, tmp_path: Path) -> None:
    again = small.run(tmp_path / "again")
    assert load_file(again.lora).keys() == load_file(run.lora).keys()
    assert all(torch.equal(load_file(again.lora)[name], each) for name, each in load_file(run.lora).items())


def test_it_is_merged_into_the_bases_weights(
    run: RunDir, small: TwoEffects, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["export", str(run.path), "--out", str(tmp_path / "out"), "--merge"]) == 0, capsys.readouterr().err
    backbone = small.plan().recipe.backbone
    delta = read_lora(run.lora, backbone.shapes()).deltas["mix"]
    before = load_file(backbone.weights / "diffusion_pytorch_model.safetensors")["mix.weight"]
    after = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")["mix.weight"]
    a, b = delta.a.double(), delta.b.double()
    by_hand = torch.einsum("or,rikl->oikl", b, a.reshape(len(a), 48, 3, 3))
    expected = (before.double() + delta.scale * by_hand).to(torch.bfloat16)
    torch.testing.assert_close(after, expected, atol=1e-3, rtol=1e-2)
    assert not torch.equal(before, after)


def test_inspect_tells_it_with_the_linears(run: RunDir, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["inspect", str(run.lora)]) == 0
    assert "mix" in capsys.readouterr().out

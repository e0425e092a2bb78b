"""What other tools get wrong with LoRA files, each as its users reported it, and what happens here instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.lora_io.blocks import LINEARS
from clora.lora_io.check import check_lora, coverage, numbers_held
from clora.lora_io.header import LoraFileError
from clora.lora_io.reader import read_lora

Tensors = dict[str, torch.Tensor]
ATTENTION = [linear for linear in LINEARS if linear.startswith("attn.")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "effect.safetensors"


def lora(module: str, rank: int, alpha: float | None = None, seed: int = 0, side: int = 24) -> Tensors:
    random = torch.Generator().manual_seed(seed)
    tensors = {
        f"{module}.lora_A.weight": torch.randn(rank, side, generator=random),
        f"{module}.lora_B.weight": torch.randn(side, rank, generator=random),
    }
    return tensors | ({f"{module}.alpha": torch.tensor(alpha)} if alpha is not None else {})


@pytest.mark.parametrize("place", ["tensor", "header", "adapter_config.json"])
@pytest.mark.parametrize("alpha", [1.0, 16.0, 256.0])
def test_a_rank_16_file_runs_at_its_own_strength(path, place, alpha):
    """Not at 16 times (alpha dropped, it was 1) or a sixteenth (alpha taken for 1, it was 16) of it."""
    prefix = {"tensor": "diffusion_model.q", "header": "transformer.q"}.get(place, "base_model.model.q")
    tensors = lora(prefix, 16, alpha if place == "tensor" else None)
    metadata = {"transformer.r": 16, "transformer.lora_alpha": alpha}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(metadata)} if place == "header" else None)
    if place == "adapter_config.json":
        path.with_name(place).write_text(json.dumps({"r": 16, "lora_alpha": alpha}))
    a, b = (tensor.double() for name, tensor in tensors.items() if "lora" in name)
    found = read_lora(path, {"q": (24, 24)}).deltas["q"].weight()
    torch.testing.assert_close(found.double(), alpha / 16 * b @ a, rtol=1e-5, atol=1e-4)


def test_a_file_whose_keys_match_nothing_is_no_silent_no_op(path):
    save_file(lora("diffusion_model.double_blocks.0.img_attn.qkv", 4), path)
    shapes = {f"transformer_blocks.0.{linear}": (24, 24) for linear in LINEARS}
    (found,) = check_lora(path, shapes)
    assert "no key names a linear that carries adapters" in found
    with pytest.raises(LoraFileError, match="no key names"):
        read_lora(path, shapes, allow_unused=True)


def test_an_attention_only_file_of_480_tensors_is_fine(path):
    modules = [f"transformer_blocks.{block}.{linear}" for block in range(30) for linear in ATTENTION]
    shapes = {f"transformer_blocks.{block}.{linear}": (2, 2) for block in range(60) for linear in LINEARS}
    tensors = {name: t for module in modules for name, t in lora(f"transformer.{module}", 1, side=2).items()}
    assert len(tensors) == 480
    save_file(tensors, path)
    assert check_lora(path, shapes, data=True) == []
    found = coverage(path, shapes)
    assert (len(found.matched), len(found.missing)) == (240, 600)
    assert set(read_lora(path, shapes).deltas) == set(modules)


def test_the_next_teacher_keeps_nothing_of_the_one_before(tmp_path):
    """Another rank, another alpha, fewer linears: those not covered are exactly the base's."""
    shapes = dict.fromkeys(("q", "k", "v"), (24, 24))
    network = nn.ModuleDict({name: nn.Linear(24, 24, bias=False) for name in shapes})
    base = {name: linear.weight.detach().clone() for name, linear in network.items()}
    adapted = AdaptedNetwork(network, tuple(shapes))
    teachers = {
        "all": lora("q", 4, 8.0, 1) | lora("k", 4, 8.0, 2) | lora("v", 4, 8.0, 3),
        "fewer": lora("k", 7, 1.0, 4),
        "other": lora("v", 2, None, 5),
    }
    for name, tensors in teachers.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    x = torch.eye(24)
    for under in (["one", "one", "one"], list(teachers)):  # under one name, each replacing the last, and side by side
        for name, (effect, tensors) in zip(under, teachers.items(), strict=True):
            deltas = read_lora(tmp_path / f"{effect}.safetensors", shapes).deltas
            adapted.add(name, Adapter.of({module: (d.a, d.b, d.scale) for module, d in deltas.items()}))
            with adapted.rows([name] * 24):
                changed = {module: adapted.linears[module](x).T - base[module] for module in shapes}
                bare = {module: torch.equal(adapted.linears[module](x), x @ base[module].T) for module in shapes}
            for module in shapes:
                assert bare[module] == (f"{module}.lora_A.weight" not in tensors)
                if not bare[module]:
                    a, b = tensors[f"{module}.lora_A.weight"].double(), tensors[f"{module}.lora_B.weight"].double()
                    alpha = float(tensors.get(f"{module}.alpha", torch.tensor(a.shape[0])))
                    torch.testing.assert_close(changed[module].double(), alpha / len(a) * b @ a, rtol=1e-4, atol=1e-4)


def test_a_few_numbers_cannot_ask_for_all_memory(path):
    tensors = {f"q.hada_w{i}_{x}": torch.ones(s) for i in "12" for x, s in (("a", (70_000, 1)), ("b", (1, 70_000)))}
    save_file(tensors, path)
    with pytest.raises(LoraFileError, match="70000 -> 70000 is larger than any linear that is known"):
        read_lora(path)


def test_what_a_teacher_holds_in_memory_is_known_from_the_header(path):
    shapes = {"q": (1000, 800), "k": (24, 24)}
    lokr = {"q.lokr_w1": torch.ones(20, 20), "q.lokr_w2": torch.ones(40, 50)}
    save_file(lokr | lora("k", 3), path)
    assert numbers_held(path, shapes) == 128 * 1800 + 3 * 48

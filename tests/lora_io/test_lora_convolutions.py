"""LoRA of convolutions in files: written as PEFT has them, read by PEFT and by us, and told where they do not fit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.contracts.convolution import Convolution
from clora.lora_io.header import LoraFileError
from clora.lora_io.reader import LoraDelta, read_lora
from clora.lora_io.writer import write_lora
from clora.toolkit.weight_files import weights_misfits

SHAPES = {"conv": Convolution(3, 5, (3, 2)), "mix": Convolution(5, 4, (1, 1)), "head": (4, 6)}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, (3, 2), padding=1)
        self.mix = nn.Conv2d(5, 4, 1)
        self.head = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.conv(x).relu()).mean((2, 3)))


def deltas(rank: int = 2) -> dict[str, LoraDelta]:
    draw = torch.Generator().manual_seed(1)
    made = {}
    for name, size in SHAPES.items():
        a, b = torch.randn(rank, size[0], generator=draw), torch.randn(size[1], rank, generator=draw)
        made[name] = LoraDelta(a, b, 0.5, size.kernel if isinstance(size, Convolution) else ())
    return made


def written(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, path)
    return path


def factors(module: str, a: tuple[int, ...], b: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {f"transformer.{module}.lora_A.weight": torch.ones(a), f"transformer.{module}.lora_B.weight": torch.ones(b)}


def test_a_file_has_a_convolution_like_the_base_and_one_of_1_x_1(tmp_path: Path) -> None:
    write_lora(tmp_path / "lora.safetensors", deltas())
    tensors = load_file(tmp_path / "lora.safetensors")
    assert tensors["transformer.conv.lora_A.weight"].shape == (2, 3, 3, 2)
    assert tensors["transformer.conv.lora_B.weight"].shape == (5, 2, 1, 1)
    assert tensors["transformer.head.lora_A.weight"].shape == (2, 4)
    for shapes in (SHAPES, None):
        for name, found in read_lora(tmp_path / "lora.safetensors", shapes).deltas.items():
            assert torch.equal(found.weight(), deltas()[name].weight())
            assert found.kernel == deltas()[name].kernel


def test_peft_computes_what_we_compute(tmp_path: Path) -> None:
    write_lora(tmp_path / "lora.safetensors", deltas(), layout="peft")
    config = LoraConfig(r=2, lora_alpha=2, target_modules=list(SHAPES))
    theirs = get_peft_model(Small(), config)
    set_peft_model_state_dict(theirs, load_file(tmp_path / "lora.safetensors"))
    ours = AdaptedNetwork(Small(), list(SHAPES))
    read = read_lora(tmp_path / "lora.safetensors", SHAPES).deltas
    ours.add("clay", Adapter.of({name: (each.a, each.b, each.scale) for name, each in read.items()}))
    x = torch.randn(3, 3, 6, 5, generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), ours.rows(["clay"] * 3):
        torch.testing.assert_close(ours.network(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_a_kernel_of_one_is_read_with_and_without_its_ones(tmp_path: Path) -> None:
    for form in ((), (1, 1)):
        path = written(tmp_path / "lora.safetensors", factors("mix", (2, 5, *form), (4, 2, *form)))
        assert read_lora(path, SHAPES).deltas["mix"].weight().shape == (4, 5, 1, 1)


@pytest.mark.parametrize(
    ("module", "a", "b", "told"),
    [
        ("conv", (2, 3, 2, 3), (5, 2, 1, 1), r"do not fit a convolution of 3 -> 5 with a kernel of 3 x 2"),
        ("conv", (2, 18), (5, 2), r"A \[2, 18\] and B \[5, 2\] do not fit a convolution"),
        ("conv", (2, 3, 3, 2), (5, 2, 3, 2), r"are not \[r, in, kh, kw\] and \[out, r, 1, 1\]"),
        ("conv", (2, 18), (5, 2, 1, 1), r"are not \[r, in, kh, kw\] and \[out, r, 1, 1\]"),
        ("conv", (2, 3, 3, 2), (5, 3, 1, 1), r"A \[2, 18\] and B|are not \[r, in\] and \[out, r\]"),
        ("head", (2, 4, 1, 1), (6, 2, 1, 1), r"do not fit a linear of 4 -> 6"),
        ("head", (2, 1, 2, 2), (6, 2, 1, 1), r"do not fit a linear of 4 -> 6"),
        ("conv", (2, 0, 3, 2), (5, 2, 1, 1), r"conv"),
    ],
)
def test_a_factor_that_does_not_fit_is_told(
    tmp_path: Path, module: str, a: tuple[int, ...], b: tuple[int, ...], told: str
) -> None:
    with pytest.raises(LoraFileError, match=told):
        read_lora(written(tmp_path / "bad.safetensors", factors(module, a, b)), SHAPES)


def test_dora_of_a_convolution_is_refused(tmp_path: Path) -> None:
    tensors = factors("conv", (2, 3, 3, 2), (5, 2, 1, 1))
    tensors["transformer.conv.lora_magnitude_vector"] = torch.ones(5)
    with pytest.raises(LoraFileError, match="belongs to a convolution, of which DoRA is not supported"):
        read_lora(written(tmp_path / "dora.safetensors", tensors), SHAPES)


def test_weights_of_another_kernel_than_the_configuration_promises_are_told(tmp_path: Path) -> None:
    state = Small().state_dict()
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    assert weights_misfits(tmp_path, SHAPES) == []
    state["conv.weight"] = state["conv.weight"].transpose(2, 3).contiguous()
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    (told,) = weights_misfits(tmp_path, SHAPES)
    assert "conv is [5, 3, 2, 3] in its weights, but [5, 3, 3, 2] by its config.json" in told


def test_a_convolutions_size_is_a_pair_and_survives_copies() -> None:
    size = SHAPES["conv"]
    assert size == (18, 5)
    for again in (copy.copy(size), copy.deepcopy(size)):
        assert isinstance(again, Convolution)
        assert (again.kernel, again.in_channels, repr(again)) == ((3, 2), 3, "Convolution(3, 5, (3, 2))")

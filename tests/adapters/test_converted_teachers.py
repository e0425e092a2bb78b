"""A LoKr teacher is decomposed once, and again when its file or its base has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clora.adapters import converted_teachers as converted
from clora.adapters.converted_teachers import read_teacher
from clora.lora_io.reader import read_lora

SHAPES = {"blocks.0.q": (12, 8)}


def write_lokr(path: Path, seed: int) -> torch.Tensor:
    """A LoKr file, and its delta in float64."""
    random = torch.Generator().manual_seed(seed)
    w1, w2 = torch.randn(2, 3, generator=random), torch.randn(4, 4, generator=random)
    save_file({"diffusion_model.blocks.0.q.lokr_w1": w1, "diffusion_model.blocks.0.q.lokr_w2": w2}, path)
    return torch.kron(w1.double(), w2.double())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read from now on."""
    read: list[Path] = []
    real = converted.read_lora

    def watched(path: Path, *args, **kwargs):
        read.append(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(converted, "read_lora", watched)
    return read


def delta(path: Path, cache: Path | None, backbone: str = "base") -> torch.Tensor:
    found = read_teacher(path, SHAPES, None, cache, backbone)["blocks.0.q"]
    return found.scale * (found.b.double() @ found.a.double())


@pytest.mark.filterwarnings("ignore:.*made into LoRA")
def test_it_is_decomposed_once_for_each_state(tmp_path: Path, counted: list[Path]) -> None:
    path, cache = tmp_path / "effect.safetensors", tmp_path / "cache"
    expected = write_lokr(path, 1)
    assert torch.allclose(delta(path, cache), expected, atol=1e-5)
    assert torch.allclose(delta(path, cache), expected, atol=1e-5)
    (kept,) = cache.iterdir()
    assert counted == [path, kept]
    delta(path, cache, backbone="another")  # a DoRA would be another LoRA there
    assert counted[2] == path
    expected = write_lokr(path, 2)
    os.utime(path, ns=(1, 1))
    assert torch.allclose(delta(path, cache), expected, atol=1e-5)
    assert counted[3] == path


@pytest.mark.filterwarnings("ignore:.*made into LoRA")
def test_a_damaged_copy_is_made_again(tmp_path: Path) -> None:
    path, cache = tmp_path / "effect.safetensors", tmp_path / "cache"
    expected = write_lokr(path, 1)
    delta(path, cache)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-5])
    assert torch.allclose(delta(path, cache), expected, atol=1e-5)
    assert torch.allclose(read_lora(kept).deltas["blocks.0.q"].weight().double(), expected, atol=1e-5)


def test_what_it_loses_is_told_and_a_plain_lora_is_not_kept(tmp_path: Path) -> None:
    write_lokr(tmp_path / "effect.safetensors", 1)
    with pytest.warns(UserWarning, match="1 linear from LoKr"):
        delta(tmp_path / "effect.safetensors", None)
    plain = {"diffusion_model.blocks.0.q.lora_A.weight": torch.ones(1, 12)}
    plain["diffusion_model.blocks.0.q.lora_B.weight"] = torch.ones(8, 1)
    save_file(plain, tmp_path / "plain.safetensors")
    assert torch.equal(delta(tmp_path / "plain.safetensors", tmp_path / "cache"), torch.ones(8, 12).double())
    assert not (tmp_path / "cache").exists()

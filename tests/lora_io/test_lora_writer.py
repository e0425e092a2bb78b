"""What is written: strength folded in, metadata, one step, and the same weights in stock PEFT and diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clora.errors import CloraError
from clora.lora_io.header import LoraFileError, inspect_header
from clora.lora_io.reader import LoraDelta, read_lora
from clora.lora_io.writer import write_lora

SHAPES = {"blocks.0.q": (4, 6), "blocks.0.k": (4, 6), "x.blocks.0.q": (4, 6)}


def deltas(dtype: torch.dtype = torch.float32) -> dict[str, LoraDelta]:
    """Ranks 2, 3, 2 and other strengths; one name is the end of another."""
    random = torch.Generator().manual_seed(0)
    return {
        module: LoraDelta(
            torch.randn(rank, 4, generator=random, dtype=dtype),
            torch.randn(6, rank, generator=random, dtype=dtype),
            scale,
        )
        for module, rank, scale in (("blocks.0.q", 3, 0.5), ("blocks.0.k", 2, 2.0), ("x.blocks.0.q", 2, -1.0))
    }


@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
def test_what_is_written_reads_back_with_scale_one(tmp_path, layout):
    path = tmp_path / "out.safetensors"
    write_lora(path, deltas(), {"clora": "{}"}, layout=layout)
    file = read_lora(path, SHAPES)
    assert file.layout == layout
    assert file.metadata["clora"] == "{}"
    assert ("lora_adapter_metadata" in file.metadata) == (layout == "diffusers")
    for module, delta in deltas().items():
        assert file.deltas[module].scale == 1
        torch.testing.assert_close(file.deltas[module].weight(), delta.weight())


def test_names_and_metadata_are_those_of_the_layouts(tmp_path):
    path = tmp_path / "out.safetensors"
    write_lora(path, deltas())
    header = inspect_header(path)
    assert set(header.tensors) == {f"transformer.{m}.lora_{x}.weight" for m in SHAPES for x in "AB"}
    config = json.loads(header.metadata["lora_adapter_metadata"])
    assert (config["transformer.r"], config["transformer.lora_alpha"]) == (2, 2)
    assert config["transformer.rank_pattern"] == config["transformer.alpha_pattern"] == {"^blocks.0.q": 3}
    write_lora(path, deltas(), layout="comfyui")
    assert set(inspect_header(path).tensors) == {f"diffusion_model.{m}.lora_{x}.weight" for m in SHAPES for x in "AB"}


def test_equal_loras_are_equal_files(tmp_path):
    metadata = {f"key {i}": 'é "quoted" \\ \n\x01' for i in range(9)}
    for i in range(3):
        write_lora(tmp_path / f"{i}.safetensors", deltas(), dict(sorted(metadata.items(), reverse=i == 1)))
    first, *others = [(tmp_path / f"{i}.safetensors").read_bytes() for i in range(3)]
    assert others == [first, first]
    assert read_lora(tmp_path / "0.safetensors", SHAPES).metadata.items() >= metadata.items()


def test_the_scale_is_folded_in_before_the_type_is_narrowed(tmp_path):
    path = tmp_path / "out.safetensors"
    write_lora(path, deltas(torch.float64), dtype=torch.bfloat16)
    delta, known = read_lora(path).deltas["blocks.0.q"], deltas(torch.float64)["blocks.0.q"]
    assert torch.equal(delta.b, (known.b.float() * 0.5).bfloat16())


def test_others_may_read_what_is_written(tmp_path):
    path, plain = tmp_path / "out.safetensors", tmp_path / "plain"
    plain.touch()
    write_lora(path, deltas())
    assert path.stat().st_mode == plain.stat().st_mode


def test_views_of_one_storage_and_transposed_factors_are_written(tmp_path):
    path = tmp_path / "out.safetensors"
    flat = torch.arange(20.0)
    shared = LoraDelta(flat[:8].view(2, 4), flat[8:].view(2, 6).T, 1.0)
    write_lora(path, {"a": shared, "b": shared})
    torch.testing.assert_close(read_lora(path).deltas["b"].weight(), shared.weight())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: write_lora(p, {}), "no LoRA weights"),
        (lambda p: write_lora(p, {"a": LoraDelta(torch.full((1, 2), torch.nan), torch.ones(2, 1), 1.0)}), "NaN"),
        (lambda p: write_lora(p, {"a": LoraDelta(torch.ones(1, 2), torch.ones(2, 1), 1e6)}, dtype=torch.half), "NaN"),
        (lambda p: write_lora(p, deltas(), {"steps": 8}), "not text"),  # type: ignore[dict-item]
    ],
)  # fmt: skip
def test_what_must_not_be_written_leaves_the_old_file(tmp_path, make, said):
    path = tmp_path / "out.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(LoraFileError, match=said):
        make(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.safetensors"]


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.safetensors"
    write_lora(path, deltas())
    before = path.read_bytes()

    def torn(_tensors, target, metadata):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", torn)
    with pytest.raises(CloraError, match="disk is full"):
        write_lora(path, deltas())
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_stock_diffusers_computes_with_the_same_weights(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("transformer_blocks.")
    }
    random, known = torch.Generator().manual_seed(1), {}
    for i, (name, linear) in enumerate(linears.items()):
        rank = 3 if i % 5 == 0 else 2
        a = torch.randn(rank, linear.in_features, generator=random)
        known[name] = LoraDelta(a, torch.randn(linear.out_features, rank, generator=random), 0.25 * (i + 1))
    path = tmp_path / "out.safetensors"
    write_lora(path, known)
    model.load_lora_adapter(path, prefix="transformer", adapter_name="student")
    loaded = dict(model.named_modules())
    assert len(known) == 28
    for name, delta in known.items():
        torch.testing.assert_close(loaded[name].get_delta_weight("student"), delta.weight(), rtol=1e-4, atol=1e-4)

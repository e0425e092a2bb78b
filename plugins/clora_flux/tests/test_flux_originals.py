"""LoRA files with the names of FLUX's original code, where one linear may be several of diffusers'."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from clora_flux import linears
from diffusers.loaders import lora_conversion_utils
from safetensors.torch import save_file

from clora.lora_io.check import check_lora, coverage, numbers_held
from clora.lora_io.linears import Linears, sizes_of
from clora.lora_io.reader import read_lora
from clora.lora_io.survey import survey

Tensors = dict[str, torch.Tensor]

TINY = linears.shapes(
    {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 4, "num_attention_heads": 2}
    | {"joint_attention_dim": 6, "pooled_projection_dim": 5, "in_channels": 3, "guidance_embeds": True}
)
QKV = "double_blocks.0.img_attn.qkv"
KINDS = ("query", "key")


def factors(shapes: Linears, rank: int, *starts: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """{original name: (A, B)} of the names that begin so."""
    made = torch.Generator().manual_seed(0)
    found = {}
    for name in shapes.originals:
        if not starts or name.startswith(starts):
            inputs, outputs = sizes_of(shapes, name)
            found[name] = torch.randn(rank, inputs, generator=made), torch.randn(outputs, rank, generator=made)
    return found


def dotted(given: Mapping[str, tuple[torch.Tensor, torch.Tensor]], prefix: str = "") -> Tensors:
    return {
        f"{prefix}{name}.lora_{part}.weight": factor
        for name, pair in given.items()
        for part, factor in zip("AB", pair, strict=True)
    }


def kohya(given: Mapping[str, tuple[torch.Tensor, torch.Tensor]], alpha: float) -> Tensors:
    tensors: Tensors = {}
    for name, (a, b) in given.items():
        flat = f"lora_unet_{name.replace('.', '_')}"
        own = float(len(a)) if name.startswith("final_layer") else alpha  # diffusers drops the last layer's alpha
        tensors |= {f"{flat}.lora_down.weight": a, f"{flat}.lora_up.weight": b, f"{flat}.alpha": torch.tensor(own)}
    return tensors


def written(folder: Path, tensors: Tensors) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "original.safetensors")
    return folder / "original.safetensors"


def assert_same_as_diffusers(file: Path, shapes: Linears, converted: Tensors) -> None:
    """Every linear's change of the same random vectors, in float64: the deltas themselves have 60 M numbers."""
    clean = {name.removeprefix("transformer."): tensor.double() for name, tensor in converted.items()}
    theirs = {name.removesuffix(".lora_A.weight") for name in clean if "lora_A" in name}
    ours = read_lora(file, shapes).deltas
    assert set(ours) >= theirs
    for name in theirs:
        x = torch.randn(shapes[name][0], 3, generator=torch.Generator().manual_seed(1)).double()
        expected = clean[f"{name}.lora_B.weight"] @ (clean[f"{name}.lora_A.weight"] @ x)
        found = ours[name].scale * (ours[name].b.double() @ (ours[name].a.double() @ x))
        torch.testing.assert_close(found, expected)


def test_original_names_cover_every_linear_once_and_whole() -> None:
    shapes = linears.shapes({"guidance_embeds": True})
    assert sizes_of(shapes, QKV) == (3072, 9216)
    assert sizes_of(shapes, "single_blocks.37.linear1") == (3072, 21504)
    assert sizes_of(shapes, "single_blocks.0.linear2") == (15360, 3072)
    rows = dict.fromkeys(shapes, 0)
    for original, parts in shapes.originals.items():
        for part in parts:
            assert shapes[part.linear][0] == sizes_of(shapes, original)[0]
            rows[part.linear] += part.count
    assert rows == {name: outputs for name, (_, outputs) in shapes.items()}
    without = linears.shapes({})
    assert not any("guidance" in name for name in without.originals)


def test_kohyas_names_at_the_published_width_give_diffusers_own_conversion(tmp_path: Path) -> None:
    shapes = linears.shapes({"guidance_embeds": True})
    starts = ("double_blocks.18.", "single_blocks.0.", *linears.OUTER_ORIGINALS, "final_layer")
    tensors = kohya(factors(shapes, 2, *starts), 1.0)
    file = written(tmp_path, tensors)
    converted = lora_conversion_utils._convert_kohya_flux_lora_to_diffusers(dict(tensors))
    assert len(converted) == 2 * (14 + 6 + 10)
    assert_same_as_diffusers(file, shapes, converted)
    assert len(read_lora(file, shapes).deltas) == 14 + 6 + 10


def test_bfls_names_at_the_published_size_give_diffusers_own_conversion(tmp_path: Path) -> None:
    shapes = linears.shapes({"guidance_embeds": True})
    tensors = dotted(factors(shapes, 1))
    file = written(tmp_path, tensors)
    norms = [
        *(f"double_blocks.{i}.{s}_attn.norm.{k}_norm.scale" for i in range(19) for s in ("img", "txt") for k in KINDS),
        *(f"single_blocks.{i}.norm.{k}_norm.scale" for i in range(38) for k in KINDS),
    ]
    # diffusers turns the rows of this one's A too, which needs two of them and makes another matrix
    last = "final_layer.adaLN_modulation.1.lora_A.weight"
    given = {**tensors, **{name: torch.zeros(1) for name in norms}, last: tensors[last].expand(2, -1)}
    converted = lora_conversion_utils._convert_bfl_flux_control_lora_to_diffusers(given)
    kept = {name: tensor for name, tensor in converted.items() if "norm_out" not in name}
    assert sum("lora_A" in name for name in kept) == len(shapes) - 1
    assert_same_as_diffusers(file, shapes, kept)


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "transformer.", "base_model.model.", "lora_unet_"])
def test_every_rows_change_is_that_of_the_original_linear(tmp_path: Path, prefix: str) -> None:
    given = factors(TINY, 3)
    file = written(tmp_path, kohya(given, 3.0) if prefix == "lora_unet_" else dotted(given, prefix))
    assert check_lora(file, TINY, data=True) == []
    read = read_lora(file, TINY)
    assert set(read.deltas) == set(TINY)
    for original, (a, b) in given.items():
        whole = b @ a
        parts = {"attn.to_q": whole[:8], "attn.to_k": whole[8:16], "attn.to_v": whole[16:24], "proj_mlp": whole[24:]}
        if original == "single_blocks.0.linear1":
            for tail, expected in parts.items():
                torch.testing.assert_close(read.deltas[f"single_transformer_blocks.0.{tail}"].weight(), expected)
        if original == "final_layer.adaLN_modulation.1":  # shift, scale -> scale, shift
            expected = torch.cat([whole[8:], whole[:8]])
            torch.testing.assert_close(read.deltas["norm_out.linear"].weight(), expected)
        if original == "double_blocks.0.txt_mlp.2":
            torch.testing.assert_close(read.deltas["transformer_blocks.0.ff_context.net.2"].weight(), whole)


def test_what_is_told_of_a_file_with_original_names(tmp_path: Path) -> None:
    file = written(tmp_path, dotted(factors(TINY, 3)))
    found = survey(file, TINY)
    assert (found.layout, found.missing, found.problems) == ("original names", (), ())
    assert found.types == {"F32": 2 * len(TINY.originals)}
    deltas = read_lora(file, TINY).deltas
    assert found.norm == pytest.approx(sum(float(d.weight().norm()) ** 2 for d in deltas.values()) ** 0.5)
    assert set(coverage(file, TINY).matched.values()) == {3}
    assert numbers_held(file, TINY) == sum(d.a.numel() + d.b.numel() for d in deltas.values())


def test_peft_finds_its_alphas_by_the_names_it_trained(tmp_path: Path) -> None:
    file = written(tmp_path, dotted(factors(TINY, 4, "double_blocks"), "base_model.model."))
    config = {"lora_alpha": 4, "alpha_pattern": {"img_attn.qkv": 8}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    scales = {name: delta.scale for name, delta in read_lora(file, TINY).deltas.items()}
    twice = {f"transformer_blocks.0.attn.to_{tail}" for tail in "qkv"}
    assert scales == {name: 2.0 if name in twice else 1.0 for name in scales}


def test_a_lokr_of_a_linear_that_is_one_here_too_is_read(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)  # the smallest singular values of some draws are cut
    w1, w2 = torch.randn(2, 2, generator=random), torch.randn(4, 4, generator=random)
    name = "lycoris_double_blocks_0_img_attn_proj"
    file = written(tmp_path, {f"{name}.lokr_w1": w1, f"{name}.lokr_w2": w2, f"{name}.alpha": torch.tensor(1.0)})
    delta = read_lora(file, TINY).deltas["transformer_blocks.0.attn.to_out.0"]
    torch.testing.assert_close(delta.weight(), torch.kron(w1, w2), atol=1e-4, rtol=1e-4)


def lokr(name: str, outputs: int) -> Tensors:
    flat = f"lycoris_{name.replace('.', '_')}"
    return {f"{flat}.lokr_w1": torch.zeros(2, 2), f"{flat}.lokr_w2": torch.zeros(outputs // 2, 4)}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (
            lokr(QKV, 24),
            f"{QKV}: only a plain LoRA of it can be divided into transformer_blocks.0.attn.to_q, "
            "transformer_blocks.0.attn.to_k, transformer_blocks.0.attn.to_v",
        ),
        (
            lokr("final_layer.adaLN_modulation.1", 16),
            "final_layer.adaLN_modulation.1: only a plain LoRA of it can be read, "
            "as its rows stand in another order in norm_out.linear",
        ),
        (
            dotted(factors(TINY, 2, QKV)) | {f"{QKV}.dora_scale": torch.ones(24, 1)},
            f"{QKV}: only a plain LoRA of it can be divided into",
        ),
        (
            dotted({QKV: (torch.zeros(2, 8), torch.zeros(25, 2))}),
            f"{QKV}: A [2, 8] and B [25, 2] do not fit a linear of 8 -> 24",
        ),
        (
            dotted(
                factors(TINY, 2, QKV) | {"transformer_blocks.0.attn.to_k": (torch.ones(2, 8), torch.ones(8, 2))},
            ),
            f"transformer_blocks.0.attn.to_k is changed under two names, '{QKV}.lora_A.weight' and "
            "'transformer_blocks.0.attn.to_k.lora_A.weight'",
        ),
        (
            dotted({"double_blocks.0.img_attn.qvk": (torch.zeros(2, 8), torch.zeros(24, 2))}),
            "no key names a linear that carries adapters: 'double_blocks.0.img_attn.qvk.lora_A.weight', "
            f"'double_blocks.0.img_attn.qvk.lora_B.weight'; the nearest is {QKV}",
        ),
        (
            dotted(factors(TINY, 2, QKV)) | {"double_blocks.0.img_attn.norm.key_norm.scale": torch.ones(4)},
            "1 of 3 keys name no linear that carries adapters: 'double_blocks.0.img_attn.norm.key_norm.scale'",
        ),
        (
            dotted(factors(TINY, 2, QKV)) | {f"{QKV}.lora_B.bias": torch.ones(24)},
            f"uses LoRA with biases ('{QKV}.lora_B.bias'), which is not supported",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, tensors: Tensors, sentence: str) -> None:
    file = written(tmp_path, tensors)
    (problem,) = check_lora(file, TINY)
    assert problem.startswith(f"{file}: {sentence}"), problem

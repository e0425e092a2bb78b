"""One known delta in every layout that is in use: the reader must find the same delta in each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clora.lora_files.check import check_lora, coverage
from clora.lora_files.header import LoraFileError
from clora.lora_files.reader import read_lora

#: module: (in, out, rank, alpha); ranks and strengths differ on purpose
KNOWN = {
    "transformer_blocks.0.attn.to_q": (6, 4, 2, 1.0),
    "transformer_blocks.0.attn.to_out.0": (4, 6, 3, 6.0),
    "transformer_blocks.1.img_mlp.net.0.proj": (6, 8, 2, 1.0),
    "transformer_blocks.1.txt_mod.1": (6, 12, 2, 1.0),
}
SHAPES = {module: (inputs, outputs) for module, (inputs, outputs, _, _) in KNOWN.items()}
Tensors = dict[str, torch.Tensor]


def factors() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    return {
        module: (torch.randn(rank, inputs, generator=random), torch.randn(outputs, rank, generator=random))
        for module, (inputs, outputs, rank, _) in KNOWN.items()
    }


def named(template_a: str, template_b: str, alpha: str | None = None) -> Tensors:
    tensors: Tensors = {}
    for module, (a, b) in factors().items():
        flat = module.replace(".", "_")
        tensors[template_a.format(M=module, F=flat)], tensors[template_b.format(M=module, F=flat)] = a, b
        if alpha is not None:
            tensors[alpha.format(M=module, F=flat)] = torch.tensor(KNOWN[module][3])
    return tensors


def folded(tensors: Tensors) -> Tensors:
    """Alpha folded half into A, half into B, as trainers do that write none."""
    folded: Tensors = {}
    for name, tensor in tensors.items():
        module = next(module for module in KNOWN if module in name)
        _, _, rank, alpha = KNOWN[module]
        folded[name] = tensor * (alpha / rank) ** 0.5
    return folded


def lora_config(prefix: str = "") -> dict[str, object]:
    config = {
        "r": 2,
        "lora_alpha": 1,
        "rank_pattern": {"transformer_blocks.0.attn.to_out.0": 3},
        "alpha_pattern": {"^transformer_blocks.0.attn.to_out.0": 6},
        "use_rslora": False,
    }
    return {prefix + key: value for key, value in config.items()}


def a_diffusers(path: Path) -> None:
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(lora_config("transformer."))}
    save_file(named("transformer.{M}.lora_A.weight", "transformer.{M}.lora_B.weight"), path, metadata)


def a_without_metadata(path: Path) -> None:
    save_file(folded(named("transformer.{M}.lora_A.weight", "transformer.{M}.lora_B.weight")), path)


def b_comfyui(path: Path) -> None:
    save_file(folded(named("diffusion_model.{M}.lora_A.weight", "diffusion_model.{M}.lora_B.weight")), path)


def c_comfyui_with_alpha(path: Path) -> None:
    names = [f"diffusion_model.{{M}}.{part}" for part in ("lora_A.weight", "lora_B.weight", "alpha")]
    save_file(named(*names), path)


def d_kohya(path: Path) -> None:
    save_file(named("lora_unet_{F}.lora_down.weight", "lora_unet_{F}.lora_up.weight", "lora_unet_{F}.alpha"), path)


def e_lightx2v(path: Path) -> None:
    save_file(named("{M}.lora_down.weight", "{M}.lora_up.weight", "{M}.alpha"), path)


def f_diffsynth(path: Path) -> None:
    save_file(folded(named("{M}.lora_A.default.weight", "{M}.lora_B.default.weight")), path)


def g_peft(path: Path) -> None:
    prefix = "base_model.model.{M}"
    save_file(named(f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight"), path)
    path.with_name("adapter_config.json").write_text(json.dumps(lora_config()))


def g_collectionlora(path: Path) -> None:
    prefix = "generator.model.base_model.model.{M}"
    save_file(named(f"{prefix}.lora_A.default.weight", f"{prefix}.lora_B.default.weight"), path)
    path.with_name("adapter_config.json").write_text(json.dumps(lora_config()))


def h_old_diffusers(path: Path) -> None:
    prefix = "transformer.{M}"
    save_file(named(f"{prefix}.lora.down.weight", f"{prefix}.lora.up.weight", f"{prefix}.alpha"), path)


LAYOUTS: dict[Callable[[Path], None], str] = {
    a_diffusers: "diffusers",
    a_without_metadata: "diffusers",
    b_comfyui: "comfyui",
    c_comfyui_with_alpha: "comfyui with alpha",
    d_kohya: "kohya",
    e_lightx2v: "lightx2v",
    f_diffsynth: "diffsynth",
    g_peft: "peft",
    g_collectionlora: "peft",
    h_old_diffusers: "old diffusers",
}


@pytest.fixture(params=LAYOUTS, ids=lambda write: write.__name__)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "effect.safetensors"
    request.param(path)
    return path, LAYOUTS[request.param]


def test_every_layout_gives_the_known_delta(written: tuple[Path, str]):
    path, layout = written
    file = read_lora(path, SHAPES)
    assert file.layout == layout
    assert file.unused == ()
    assert set(file.deltas) == set(KNOWN)
    for module, (a, b) in factors().items():
        _, _, rank, alpha = KNOWN[module]
        expected = (b.double() @ a.double()) * alpha / rank
        torch.testing.assert_close(file.deltas[module].weight().double(), expected, rtol=1e-5, atol=1e-6)


def test_every_layout_is_found_whole_by_the_check(written: tuple[Path, str]):
    path, layout = written
    found = coverage(path, SHAPES)
    assert found.layout == layout
    assert dict(found.matched) == {module: rank for module, (_, _, rank, _) in KNOWN.items()}
    assert found.missing == found.unmatched == ()
    assert found.notes() == ["ranks differ between linears: 2, 3"]
    assert check_lora(path, SHAPES, data=True) == []


def test_a_file_is_read_without_shapes_unless_its_names_need_them(written: tuple[Path, str]):
    path, layout = written
    if layout == "kohya":
        with pytest.raises(LoraFileError, match="underscores for dots"):
            read_lora(path)
    else:
        assert set(read_lora(path).deltas) == set(KNOWN)


def test_two_linears_with_one_flat_name_are_not_guessed(tmp_path):
    path = tmp_path / "f.safetensors"
    save_file(
        {"lora_unet_a_b_c.lora_down.weight": torch.ones(1, 2), "lora_unet_a_b_c.lora_up.weight": torch.ones(2, 1)}, path
    )
    assert set(read_lora(path, {"a.b_c": (2, 2)}).deltas) == {"a.b_c"}
    with pytest.raises(LoraFileError, match="no key names"):
        read_lora(path, {"a.b_c": (2, 2), "a_b.c": (2, 2)})


def test_a_linear_whose_own_name_begins_like_a_prefix_is_found(tmp_path):
    path = tmp_path / "f.safetensors"
    save_file(
        {"transformer.to_q.lora_A.weight": torch.ones(1, 2), "transformer.to_q.lora_B.weight": torch.ones(2, 1)}, path
    )
    assert set(read_lora(path, {"transformer.to_q": (2, 2)}).deltas) == {"transformer.to_q"}


def test_rslora_divides_by_the_root_of_the_rank(tmp_path):
    path = tmp_path / "f.safetensors"
    tensors = {"transformer.q.lora_A.weight": torch.ones(4, 2), "transformer.q.lora_B.weight": torch.ones(2, 4)}
    config = {"transformer.lora_alpha": 8, "transformer.use_rslora": True}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(config)})
    assert read_lora(path).deltas["q"].scale == pytest.approx(8 / 2)


@pytest.mark.parametrize(
    ("patterns", "of_q", "of_xq"),
    [
        ({"a.q": 6}, 6, 6),
        ({"^a.q": 6}, 6, 2),
        ({r"^a\.q$": 6}, 6, 2),
        ({"q": 6, "a.q": 4}, 6, 6),
        ({"a": 6}, 2, 2),
        ({"x.a.q": 6}, 2, 6),
    ],
)
def test_alpha_patterns_match_as_in_peft(tmp_path, patterns, of_q, of_xq):
    from peft.utils.other import get_pattern_key

    path = tmp_path / "f.safetensors"
    pair = {"lora_A.weight": torch.ones(1, 2), "lora_B.weight": torch.ones(2, 1)}
    tensors = {
        f"transformer.{module}.{part}": tensor.clone() for module in ("a.q", "x.a.q") for part, tensor in pair.items()
    }
    config = {"transformer.lora_alpha": 2, "transformer.alpha_pattern": patterns}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(config)})
    deltas = read_lora(path).deltas
    for module, alpha in (("a.q", of_q), ("x.a.q", of_xq)):
        assert deltas[module].scale == alpha == patterns.get(get_pattern_key(list(patterns), module), 2)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a map"),
        ('{"transformer.r": 4}', "lora_alpha is None"),
        ('{"transformer.lora_alpha": "8"}', "lora_alpha is '8'"),
        ('{"transformer.lora_alpha": NaN}', "lora_alpha is nan"),
        ('{"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"(a+)+b": 1}}', "no plain name"),
        ('{"transformer.lora_alpha": 8, "transformer.use_dora": true}', "DoRA"),
    ],
)
def test_a_strength_that_cannot_be_understood_is_refused(tmp_path, config, said):
    path = tmp_path / "f.safetensors"
    tensors = {"transformer.q.lora_A.weight": torch.ones(4, 2), "transformer.q.lora_B.weight": torch.ones(2, 4)}
    save_file(tensors, path, {"lora_adapter_metadata": config})
    with pytest.raises(LoraFileError, match=said):
        read_lora(path)
    (found,) = check_lora(path, {"q": (2, 2)})
    assert said in found


def test_eight_bit_floats_become_float32_and_a_type_can_be_asked_for(tmp_path):
    path = tmp_path / "f.safetensors"
    a = torch.tensor([[1.0, 0.5]])
    save_file(
        {"q.lora_A.weight": a.to(torch.float8_e4m3fn), "q.lora_B.weight": a.T.to(torch.bfloat16).contiguous()}, path
    )
    delta = read_lora(path).deltas["q"]
    assert (delta.a.dtype, delta.b.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(delta.a, a)
    assert read_lora(path, dtype=torch.float64).deltas["q"].b.dtype == torch.float64

"""One known delta in every layout that is in use: the reader must find the same delta in each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clora.lora_io.check import check_lora, coverage
from clora.lora_io.header import LoraFileError
from clora.lora_io.reader import read_lora


def test_every_layout_gives_the_known_delta(written: tuple[Path, str], shapes, known):
    path, layout = written
    file = read_lora(path, shapes, weights=lambda module: known[module].base)
    assert file.layout == layout
    assert file.unused == ()
    assert set(file.deltas) == set(known)
    for module, linear in known.items():
        torch.testing.assert_close(file.deltas[module].weight().double(), linear.delta, rtol=1e-4, atol=1e-5)
        assert file.deltas[module].a.shape[0] == linear.rank  # ... and what was converted has no needless rank
    assert file.loss < 1e-5
    assert bool(file.notes()) == (layout.split()[-1] in ("lokr", "loha", "dora"))


def test_every_layout_is_found_whole_by_the_check(written: tuple[Path, str], shapes, known):
    path, layout = written
    found = coverage(path, shapes)
    assert found.layout == layout
    assert set(found.matched) == set(known)
    assert found.missing == found.unmatched == ()
    if layout.split()[-1] in ("lokr", "loha", "dora"):
        assert all(found.matched[module] >= linear.rank for module, linear in known.items())
    else:
        assert dict(found.matched) == {module: linear.rank for module, linear in known.items()}
        assert found.notes() == ["ranks differ between linears: 2, 3"]
    assert check_lora(path, shapes, data=True) == []


def test_a_file_is_read_without_shapes_unless_its_names_need_them(written: tuple[Path, str], known):
    path, layout = written
    if layout.startswith(("kohya", "lycoris")):
        with pytest.raises(LoraFileError, match="underscores for dots"):
            read_lora(path)
    else:
        assert set(read_lora(path, weights=lambda module: known[module].base).deltas) == set(known)


def test_a_file_in_two_layouts_is_read_where_every_linear_has_one(tmp_path, shapes, known):
    path, tensors = tmp_path / "f.safetensors", {}
    for module, linear in known.items():
        flat = f"lora_unet_{module.replace('.', '_')}"
        down, up = linear.a.float(), linear.b.float()
        if "attn" in module:
            tensors |= {f"transformer.{module}.lora_A.weight": down, f"transformer.{module}.lora_B.weight": up}
            tensors[f"transformer.{module}.alpha"] = torch.tensor(linear.alpha)
        else:
            tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            tensors[f"{flat}.alpha"] = torch.tensor(linear.alpha)
    save_file(tensors, path)
    file = read_lora(path, shapes)
    assert file.layout == "diffusers + kohya"
    for module, linear in known.items():
        torch.testing.assert_close(file.deltas[module].weight().double(), linear.delta, rtol=1e-5, atol=1e-6)


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
        ("{", "is no JSON: "),
        ("[]", "not a map"),
        ('{"transformer.r": 4}', "lora_alpha is None"),
        ('{"transformer.lora_alpha": "8"}', "lora_alpha is '8'"),
        ('{"transformer.lora_alpha": NaN}', "NaN is no number"),
        ('{"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"(a+)+b": 1}}', "no plain name"),
        ('{"transformer.lora_alpha": 8, "transformer.use_dora": true}', "says use_dora, but q has no magnitude"),
        ('{"transformer.peft_type": "LOHA", "transformer.lora_alpha": 8}', "of PEFT's type 'LOHA'"),
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

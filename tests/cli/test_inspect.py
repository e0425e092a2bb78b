"""`clora inspect`: what is told of a LoRA file, checked against plain float64 arithmetic on its tensors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clora.cli import main

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "plugins/clora_emoji/assets/teachers/thermal.safetensors"
QUICKSTART = ROOT / "recipes/quickstart.yaml"
Tensors = dict[str, torch.Tensor]


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """The exit code and what was printed, each run of blanks one."""
    code = main(["inspect", *map(str, words)])
    return code, " ".join(capsys.readouterr().out.split())


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict]:
    main(["inspect", "--json", *map(str, words)])
    return json.loads(capsys.readouterr().out)


def lora(name: str, rank: int = 4, alpha: float | None = None, *, flat: bool = False, scale: float = 1.0) -> Tensors:
    """A LoRA of one of the emoji backbone's 128 -> 128 linears."""
    random = torch.Generator().manual_seed(len(name))
    a, b = "lora_down" if flat else "lora_A", "lora_up" if flat else "lora_B"
    tensors = {
        f"{name}.{a}.weight": torch.randn(rank, 128, generator=random),
        f"{name}.{b}.weight": torch.randn(128, rank, generator=random) * scale,
    }
    return tensors | ({f"{name}.alpha": torch.tensor(alpha)} if alpha is not None else {})


def saved(path: Path, *parts: Tensors, **metadata: str) -> Path:
    save_file({name: tensor for part in parts for name, tensor in part.items()}, path, metadata or None)
    return path


def test_a_teacher_of_the_quick_start(capsys):
    tensors = {name: tensor.double() for name, tensor in load_file(TEACHER).items()}
    norms = {}
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            module = name.removeprefix("transformer.").removesuffix(".lora_A.weight")
            norms[module] = float((tensors[name.replace("lora_A", "lora_B")] @ a).norm())
    whole = sum(norm**2 for norm in norms.values()) ** 0.5
    code, text = told(capsys, TEACHER, "--recipe", QUICKSTART)
    assert code == 0
    assert f"{TEACHER} diffusers layout, BF16, 636 kB" in text
    assert "rank 8, alpha 8 (scale 1): 84 linears alpha from the header's lora_adapter_metadata" in text
    assert "84 of 84 linears of quickstart.yaml's backbone" in text
    assert f"{whole:.4g} |delta| of the whole file" in text
    for module in sorted(norms, key=lambda m: -norms[m])[:3]:
        assert f"{norms[module]:.3g} {module}" in text
    assert "none known to get its strength wrong" in text
    assert "UNUSABLE" not in text

    (found,) = as_json(capsys, TEACHER, "--backbone", "emoji")
    assert found["usable"]
    assert found["norm"] == pytest.approx(whole, rel=1e-5)
    assert {m: x["norm"] for m, x in found["linears"].items()} == pytest.approx(norms, rel=1e-5)
    assert found["missing"] == found["unmatched"] == found["problems"] == []


def test_ranks_and_alphas_are_grouped_and_flat_names_understood_without_a_backbone(tmp_path, capsys):
    path = saved(
        tmp_path / "ink.safetensors",
        *(
            lora(f"lora_unet_transformer_blocks_{block}_attn_{linear}", 8 if block == 3 else 4, 2.0, flat=True)
            for block in range(6)
            for linear in ("to_q", "to_out_0")
        ),
    )
    code, text = told(capsys, path)
    assert code == 0
    assert "rank 4, alpha 2 (scale 0.5): 10 linears transformer_blocks 0-2, 4-5: attn.to_q, attn.to_out.0" in text
    assert "rank 8, alpha 2 (scale 0.25): 2 linears transformer_blocks 3: attn.to_q, attn.to_out.0" in text
    assert "coverage transformer_blocks 0-5: attn.to_q, attn.to_out.0" in text
    assert "transformer_blocks: 2 kinds of linear; not attn.to_k, " in text
    assert (
        told(capsys, path, "--backbone", "emoji")[1].count("12 of 84 linears of emoji; the rest stay the base's") == 1
    )
    (found,) = as_json(capsys, path, "--backbone", "emoji")
    assert len(found["missing"]) == 72
    assert found["linears"]["transformer_blocks.3.attn.to_q"] | {"norm": 0} == {
        "kind": "LoRA", "out": 128, "in": 128, "rank": 8, "alpha": 2, "alpha_from": "tensor", "scale": 0.25, "norm": 0,
        "as_lora": None,
    }  # fmt: skip


def test_the_scale_is_in_the_norm(tmp_path, capsys):
    tensors = lora("transformer_blocks.0.attn.to_q", 4, -2.0)
    a, b, _ = (tensor.double() for tensor in tensors.values())
    (found,) = as_json(capsys, saved(tmp_path / "f.safetensors", tensors))
    assert found["norm"] == pytest.approx(float((0.5 * b @ a).norm()), rel=1e-5)


def test_every_bad_file_is_told_with_every_problem_and_good_ones_beside_it(tmp_path, capsys):
    good = saved(tmp_path / "good.safetensors", lora("transformer_blocks.0.attn.to_q"))
    bad = lora("transformer_blocks.0.attn.to_q") | lora("transformer_blocks.99.attn.to_q")
    bad["transformer_blocks.0.attn.to_q.lora_B.weight"][0, 0] = torch.nan
    odd = saved(tmp_path / "bad.safetensors", bad)
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:900])
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04" + bytes(100))
    code, text = told(capsys, *sorted(tmp_path.iterdir()), tmp_path / "gone", "--backbone", "emoji")
    assert code == 2
    assert text.count("UNUSABLE") == 4
    assert "2 of 4 keys name no linear that carries adapters: 'transformer_blocks.99.attn.to_q.lora_A.weight'" in text
    assert "NaN or infinity in 'transformer_blocks.0.attn.to_q.lora_B.weight'" in text
    assert "keys that match nothing load as a silent no-op" in text
    assert "truncated" in text
    assert "this is a pickle" in text
    assert "there is no such file" in text
    assert "1 of 84 linears of emoji" in text
    assert [found["usable"] for found in as_json(capsys, good, odd, "--backbone", "emoji")] == [True, False]


def test_a_file_of_another_model_is_refused_and_its_problems_are_counted(tmp_path, capsys):
    modules = [f"transformer_blocks.{block}.attn.{name}" for block in range(6) for name in ("to_q", "to_k")]
    tensors = {n: t[:, :64] if "lora_A" in n else t for module in modules for n, t in lora(module).items()}
    path = saved(tmp_path / "f.safetensors", {name: tensor.contiguous() for name, tensor in tensors.items()})
    code, text = told(capsys, path, "--backbone", "emoji")
    assert code == 2
    assert text.count("do not fit a linear of 128 -> 128") == 10
    assert "and 2 more; --modules tells them all" in text
    assert told(capsys, path, "--backbone", "emoji", "--modules")[1].count("do not fit a linear of 128 -> 128") == 12
    assert told(capsys, path)[0] == 0


Q = "transformer_blocks.0.attn.to_q"
FLAT = f"lora_unet_{Q.replace('.', '_')}"
LOKR = {
    f"diffusion_model.{Q}.{part}": torch.ones(shape)
    for part, shape in {"lokr_w1": (4, 4), "lokr_w2_a": (32, 2), "lokr_w2_b": (2, 32), "alpha": ()}.items()
}
ALPHA_8 = json.dumps({"transformer.r": 4, "transformer.lora_alpha": 8})


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        (lora(f"diffusion_model.{Q}", 4, 1.0), {}, ["diffusers up to 0.41: drops", "sglang", "runs at 4x strength"]),
        (lora(Q, 16, 1.0, flat=True), {}, ["sglang until January 2026: takes alpha for the rank: runs at 16x"]),
        (lora(f"transformer.{Q}"), {"lora_adapter_metadata": ALPHA_8}, ["ComfyUI: reads alpha", "at 0.5x strength"]),
        (lora(f"diffusion_model.{Q}", 4, 4.0), {}, []),
        (lora(f"transformer.{Q}"), {}, []),
        (LOKR, {}, ["LyCORIS 4.1.3, merging: get_merged_weight multiplies by alpha / rank twice"]),
        (lora(FLAT, flat=True) | {f"{FLAT}.dora_scale": torch.ones(128, 1)}, {}, ["diffusers 0.42: leaves dora_scale"]),
    ],
)  # fmt: skip
def test_programs_that_would_get_the_strength_wrong_are_named(tmp_path, capsys, tensors, metadata, said):
    code, text = told(capsys, saved(tmp_path / "f.safetensors", tensors, **metadata))
    assert code == 0
    for part in said:
        assert part in text
    others = {"diffusers", "sglang", "ComfyUI", "LyCORIS"} - {word for part in said for word in part.split()[:1]}
    assert not [name for name in others if f"{name} " in text.partition("beware")[2]]


def test_an_alpha_beside_the_file_is_lost_with_it(tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 2}))
    _, text = told(capsys, saved(tmp_path / "f.safetensors", lora(f"base_model.model.{Q}")))
    assert "rank 4, alpha 2 (scale 0.5): 1 linear alpha from adapter_config.json beside it" in text
    assert "whatever gets the file alone: alpha is in adapter_config.json beside it: without that, 2x strength" in text


def test_attention_alone_is_fine_and_partial_coverage_is_told(tmp_path, capsys):
    code, text = told(capsys, saved(tmp_path / "f.safetensors", lora(Q)), "--backbone", "emoji")
    assert code == 0
    assert "CollectionLoRA's code: refuses it for too few tensors" in text
    assert "CollectionLoRA's code: the linears that it does not cover keep the previous teacher's weights" in text


def test_what_a_lokr_loses_as_a_lora_is_told(tmp_path, capsys):
    random = torch.Generator().manual_seed(0)
    w1, w2 = torch.randn(4, 4, generator=random), torch.randn(32, 32, generator=random)
    w2[:, 30:] = 0
    path = saved(
        tmp_path / "f.safetensors", {f"lycoris_{Q.replace('.', '_')}.lokr_{n}": w for n, w in (("w1", w1), ("w2", w2))}
    )
    (found,) = as_json(capsys, path)
    linear = found["linears"][Q]
    assert linear["kind"] == "LoKr"
    assert linear["norm"] == pytest.approx(float(torch.kron(w1.double(), w2.double()).norm()), rel=1e-5)
    values = torch.linalg.svdvals(torch.kron(w1.double(), w2.double()))
    rank = linear["as_lora"]["rank"]
    assert linear["as_lora"]["error"] == pytest.approx(float(values[rank:].norm() / values.norm()), abs=1e-6)
    _, text = told(capsys, path)
    assert "LoKr of two whole factors, no alpha (scale 1): 1 linear" in text
    assert f"made into LoRA of rank up to {rank}: 1 linear from LoKr; this loses 0.0" in text


def test_dora_has_no_norm_without_the_base(tmp_path, capsys):
    path = saved(tmp_path / "f.safetensors", lora(Q) | {f"{Q}.magnitude": torch.ones(128)})
    assert "DoRA: only the base's weights tell how large it is" in told(capsys, path)[1]
    assert as_json(capsys, path)[0]["norm"] is None


def test_metadata_is_shown_and_cannot_move_the_cursor(tmp_path, capsys):
    how = {"steps": 4, "effects": {"ink": {"prompt": "draw it in ink", "caption": "x"}}}
    path = saved(
        tmp_path / "f.safetensors",
        lora(Q),
        **{"modelspec.title": "ink\x1b[2J\r\n", "modelspec.trigger_phrase": "ink style", "clora": json.dumps(how)},
        ss_base_model_version="qwen_image_edit",
    )  # fmt: skip
    main(["inspect", str(path)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    text = " ".join(out.split())
    for part in ("title: ink [2J", "trigger: ink style", "base model: qwen_image_edit", "1 effect, 4 steps: ink: draw"):
        assert part in text
    assert told(capsys, saved(path, lora(Q), clora='{"effects": [1]}'))[0] == 0


def test_a_line_for_every_linear(capsys):
    _, text = told(capsys, TEACHER, "--modules")
    assert text.count("rank 8, alpha 8 (scale 1)") == 85


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backbone", "emojy"], "backbone has no component 'emojy'; did you mean 'emoji'?"),
        (["--with", "w.yaml"], "--world, --with and --set change the recipe of --recipe, and there is none"),
        (["--world", "w.yaml"], "--world, --with and --set change the recipe of --recipe, and there is none"),
        (["--recipe", "gone.yaml"], "gone.yaml"),
    ],
)
def test_mistakes_in_the_words(capsys, words, said):
    assert main(["inspect", str(TEACHER), *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_its_help_needs_no_torch():
    code = (
        "import sys, clora.cli\n"
        "try: clora.cli.main(['inspect', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0

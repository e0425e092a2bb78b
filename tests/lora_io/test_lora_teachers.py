"""What a file is worth as a teacher: nothing, noise, a doubtful strength; held against plain float64 arithmetic."""

from __future__ import annotations

import json
from math import inf, sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clora.adapters.converted_teachers import read_teacher
from clora.cli import main
from clora.lora_io.base_weights import BaseWeights, base_weights
from clora.lora_io.header import LoraFileError
from clora.lora_io.norms import entry_bound, entry_norm, norm, product_norm
from clora.lora_io.reader import read_lora
from clora.lora_io.survey import survey
from clora.lora_io.teacher import judge

Q, K = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"
SHAPES = {Q: (8, 8), K: (8, 8)}
BASE = BaseWeights("BF16", 0.1)
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "effect.safetensors"


def lora(module: str, a: float, b: float, alpha: float | None = None, dtype: torch.dtype = torch.float64) -> Tensors:
    tensors = {
        f"{module}.lora_down.weight": torch.full((2, 8), a, dtype=dtype),
        f"{module}.lora_up.weight": torch.full((8, 2), b, dtype=dtype),
    }
    return tensors if alpha is None else tensors | {f"{module}.alpha": torch.tensor(alpha, dtype=dtype)}


def both(a: float, b: float, alpha: float | None = None, dtype: torch.dtype = torch.float64) -> Tensors:
    return lora(Q, a, b, alpha, dtype) | lora(K, a, b, alpha, dtype)


def lokr(module: str, rank: int | None, alpha: float) -> Tensors:
    """Rank None stores the second factor whole."""
    second = {"lokr_w2": (4, 4)} if rank is None else {"lokr_w2_a": (4, rank), "lokr_w2_b": (rank, 4)}
    shapes = {"lokr_w1": (2, 2)} | second
    parts = {f"{module}.{part}": torch.full(shape, 0.01) for part, shape in shapes.items()}
    return parts | {f"{module}.alpha": torch.tensor(alpha)}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (both(0, 0), "all its factors are zero: it changes nothing"),
        (both(1, 0), "every B is zero, as in a LoRA that was never trained: it changes nothing"),
        (both(0, 1), "every A is zero: it changes nothing"),
        (lora(Q, 0, 1) | lora(K, 1, 0), "the products of its factors are all zero: it changes nothing"),
        (both(1, 1, 0.0), "its strength is 0: it changes nothing"),
        (both(1e-30, 1e-30), "its whole change is below the smallest number of float32: it changes nothing"),
        (both(1e300, 1), "lora_down.weight' holds 1e+300, which is beyond the range of float32 (2 tensors are so)"),
        (both(1, 1, 1e200), "its strength 5e+199 is beyond the range of float32 (2 of 2 linears are so)"),
        (both(1e30, 1e30, dtype=torch.float32), "times the base's own weights; beyond 256 times nothing of the base"),
        (both(1e2, 1e2) | lora(Q, 0.01, 0.01), f"|delta| of {K} is 2e+05 times the base's own weights"),
        ({n: t * ("w1" not in n) for n, t in lokr(Q, 2, 2.0).items()}, "its lokr_w1 are zero everywhere"),
    ],
)  # fmt: skip
def test_a_file_that_teaches_nothing_or_noise_is_refused_as_a_teacher(path, tensors, said):
    save_file(tensors, path)
    (told,) = judge(path, SHAPES, BASE).problems
    assert told.startswith(f"{path}: ")
    assert said in told
    assert judge(path, SHAPES, BASE, data=False).problems == ()


def test_between_a_trained_effect_and_noise_there_is_a_warning(path):
    """|delta| = 16 a b in a linear of 64 numbers whose base has a norm of 0.8."""
    for factor, doubtful in ((0.1, False), (0.2, False), (0.24, True), (3.0, True)):
        save_file(both(factor, factor), path)
        found = judge(path, SHAPES, BASE)
        assert found.problems == ()
        assert bool(found.warnings) == doubtful == (16 * factor**2 / 0.8 > 1)
    (told,) = found.warnings
    assert f"|delta| is {16 * 9 / 0.8:.3g} times the base's own weights (trained effects have 0.01 to 0.3;" in told


def test_the_banks_scale_counts_and_a_base_that_is_not_here_is_taken_for_a_large_one(path):
    save_file(both(0.1, 0.1), path)
    assert (
        judge(path, SHAPES, BASE, scale=1e300)
        .problems[0]
        .endswith("beyond the range of float32 (2 of 2 linears are so)")
    )
    assert "is 2e+03 times the base's own weights" in judge(path, SHAPES, BASE, scale=1e4).problems[0]
    assert judge(path, SHAPES, BaseWeights(), scale=40.0) == judge(path, SHAPES, BaseWeights())
    assert (
        "weights of root mean square 1 (the base's are not" in judge(path, SHAPES, BaseWeights(), scale=100).warnings[0]
    )


def test_a_base_in_float16_holds_less(path):
    save_file(both(7e4, 1e-9, dtype=torch.float32), path)
    assert judge(path, SHAPES, BASE) == judge(path, SHAPES, BaseWeights())
    assert "holds 7e+04, which is beyond the range of float16" in judge(path, SHAPES, BaseWeights("F16")).problems[0]


def test_a_bases_weights_are_sampled_from_its_files(tmp_path):
    weights = {f"{m}.weight": torch.full((8, 8), size, dtype=torch.bfloat16) for m, size in ((Q, 3.0), (K, 4.0))}
    save_file(weights | {"other.weight": torch.full((8, 8), 1e9)}, tmp_path / "model-1.safetensors")
    assert base_weights(tmp_path, SHAPES) == BaseWeights("BF16", pytest.approx(sqrt(12.5)))
    assert base_weights(None, SHAPES) == base_weights(tmp_path / "gone", SHAPES) == BaseWeights()
    (tmp_path / "model-2.safetensors").write_bytes(b"broken")
    assert base_weights(tmp_path, SHAPES) == BaseWeights()


@pytest.mark.parametrize("size", [1e-150, 1e-30, 1.0, 1e30, 1e150])
def test_norms_are_exact_where_float64_holds_them_and_overflow_honestly(path, size):
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((3, 7), (5, 3)))
    expected = float((b @ a).norm())
    assert product_norm(a * size, b / size) == pytest.approx(expected)
    assert product_norm(a * size, b * size) == pytest.approx(expected * size * size)
    assert norm(a * size) == pytest.approx(float(a.norm()) * size)
    assert product_norm(a * 1e200, b * 1e200) == inf
    assert product_norm(a.T, b.T.contiguous()[:, :3].T @ torch.zeros(3, 7, dtype=torch.float64)) == 0.0


def test_every_kinds_norm_is_that_of_its_delta_and_never_above_its_bound(written, shapes, known):
    from clora.lora_io.contents import understand
    from clora.lora_io.header import inspect_header
    from clora.lora_io.reader import file_strengths, finite_tensors

    file, _ = written
    contents = understand(file, inspect_header(file), shapes)
    scales = file_strengths(file, inspect_header(file), contents)
    for module, tensors in finite_tensors(file, contents):
        entry, scale = contents.entries[module], scales[module].scale
        found, bound = entry_norm(entry, tensors, scale), entry_bound(entry, tensors, scale)
        if entry.magnitude is not None:
            assert found is bound is None
            continue
        assert found == pytest.approx(float(known[module].delta.norm()), rel=1e-5)
        assert bound is not None
        assert bound >= found * (1 - 1e-9)


@pytest.mark.parametrize(
    ("tensors", "change"),
    [
        (both(1e30, 1e30, dtype=torch.float32), f"{16e60 * sqrt(2):.4g}"),
        (both(1e300, 1.0), f"{16e300 * sqrt(2):.4g}"),
        (both(1e300, 1e300), "overflow"),
        (both(1, 1, 1e200), f"{8e200 * sqrt(2):.4g}"),
        ({n: t.double() * 1e150 for n, t in lokr(Q, None, 1.0).items()}, f"{8 * 1e-4 * 1e300:.4g}"),
        ({n: t.double() * 1e200 for n, t in lokr(Q, None, 1.0).items()}, "overflow"),
    ],
)
def test_inspect_tells_a_norm_or_that_it_overflows(path, capsys, tensors, change):
    save_file(tensors, path)
    assert main(["inspect", str(path)]) == 0
    assert f"{change} |delta| of the whole file" in " ".join(capsys.readouterr().out.split())
    main(["inspect", "--json", str(path)])
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)[0]["norm"]
    assert found == ("overflow" if change == "overflow" else pytest.approx(float(change), rel=1e-3))


def test_a_lokr_beyond_float32_is_no_teacher(path):
    save_file({n: t.double() * 1e150 for n, t in lokr(Q, None, 1.0).items()}, path)
    with pytest.raises(LoraFileError, match=f"{Q} cannot be made a LoRA: its delta is beyond the range of float32"):
        read_lora(path, SHAPES)


PEFT = {
    n.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): t
    for n, t in lora(f"base_model.model.{Q}", 0.1, 0.1).items()
}
DIM = {"ss_network_dim": "32", "ss_network_alpha": "1"}


@pytest.mark.parametrize(
    ("tensors", "metadata", "said", "of_header"),
    [
        (
            lokr(Q, None, 1.0), DIM,
            "1 linear, LoKr of two whole factors, has strength 1 by their own ranks, as ComfyUI and PEFT take it, and "
            "0.0312 by alpha / ss_network_dim (32) of the header, as LyCORIS may have trained it", [1 / 32],
        ),
        (
            lokr(Q, 1, 181.0) | lokr(K, 4, 181.0), DIM,
            "2 linears, LoKr, have strength 181 and 45.2 by their own ranks, as ComfyUI and PEFT take it, and 5.66 by "
            "alpha / ss_network_dim", [181 / 32, 181 / 32],
        ),
        (
            lokr(Q, 1, 181.0) | lokr(K, 4, 181.0), {},
            "2 linears, LoKr of ranks 4 and 1, have one alpha: strengths 181 and 45.2 as ComfyUI and PEFT", None,
        ),
        (
            lora(Q, 0.1, 0.1), {"ss_network_alpha": "1", "ss_network_dim": "2"},
            "1 linear has no alpha: strength 1 is taken, as ComfyUI, diffusers and kohya's loader do, but "
            "ss_network_alpha (1) of the header would make it 0.5", [0.5],
        ),
        (PEFT, {}, "1 linear has PEFT's names, whose alpha is in adapter_config.json, and none lies beside", None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*made into LoRA")
def test_a_doubtful_strength_is_told_and_a_key_settles_it(path, capsys, tensors, metadata, said, of_header):
    save_file(tensors, path, metadata)
    (told,) = judge(path, SHAPES, BaseWeights()).warnings
    assert said in told
    assert told.endswith("; the bank's key `strength` settles it: file, header, or a number")
    assert judge(path, SHAPES, BaseWeights(), data=False).warnings == (told,)
    assert survey(path, SHAPES).doubts == (told,)
    assert main(["inspect", str(path)]) == 0
    assert "doubt " in capsys.readouterr().out
    for settled in ("file", 0.03125):
        assert judge(path, SHAPES, BaseWeights(), strength=settled).warnings == ()
    own = {m: d.scale * d.weight() for m, d in read_lora(path, SHAPES, strength=1.0).deltas.items()}
    for strength in (0.03125, "header"):
        if strength == "header" and of_header is None:
            (problem,) = judge(path, SHAPES, BaseWeights(), strength=strength).problems
            assert "the bank says `strength: header`, but its header has no ss_network_dim and" in problem
            continue
        found = read_teacher(path, SHAPES, None, path.parent / "cache", "base", strength)
        for i, (module, delta) in enumerate(found.items()):
            scale = 0.03125 if strength == 0.03125 else of_header[i]
            torch.testing.assert_close(delta.weight().double(), own[module].double() * scale, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        (lokr(Q, None, 32.0), DIM),  # as LyCORIS writes it
        (lokr(Q, None, 9_999_999_999.0), DIM),  # as ai-toolkit does
        (lokr(Q, 4, 4.0) | lokr(K, 4, 4.0), {}),
        (lora(Q, 0.1, 0.1, 1.0), DIM),
        (lora(Q, 0.1, 0.1), {"ss_network_dim": "2", "ss_network_alpha": "2"}),
        (lora(Q, 0.1, 0.1), {"ss_network_dim": "Dynamic", "ss_network_alpha": "None"}),
        (lora(Q, 0.1, 0.1), {"ss_network_dim": "9" * 9000, "ss_network_alpha": "1e999"}),
    ],
)
def test_what_is_clear_is_not_doubted(path, tensors, metadata):
    save_file(tensors, path, metadata)
    assert judge(path, SHAPES, BaseWeights()).warnings == ()

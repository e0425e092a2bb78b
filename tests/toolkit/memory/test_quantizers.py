"""Weights in few bits by packages: as far from the weight as the format says, and used as our own are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from clora.errors import CloraError
from clora.toolkit.memory.linear import FrozenLinear
from clora.toolkit.memory.names import Quantizer, Weights
from clora.toolkit.memory.precision import Form, nf4_levels
from clora.toolkit.memory.quantizers import OFFERED, OLDEST, form_of
from clora.toolkit.memory.settings import NetworkMemory

PAIRS = [(weights, quantizer) for quantizer in OLDEST for weights in OFFERED[quantizer]]
#: what float32 numbers lose before they are rounded to codes: bitsandbytes has int8 of float16 alone
FLOAT16 = 2**-11
#: how far our nf4 is from bitsandbytes' at the same code, of a block's largest number; 1.7e-7 was measured
MOST_APART = 2e-7
SHAPES = [(70, 33), (40, 96), (256, 128), (7, 9), (1, 64), (5, 1), (1, 1)]


def form(weights: Weights, quantizer: Quantizer) -> Form:
    pytest.importorskip(quantizer)
    return form_of(weights, quantizer)


def weight(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers whose rows differ a hundredfold in size; the fourth row is of zeros, if there is one."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made *= torch.logspace(-3, -1, shape[0], dtype=torch.float64)[:, None]
    made[3:4] = 0
    return made.to(dtype)


def of_rows(w: np.ndarray, weights: Weights, quantizer: Quantizer) -> np.ndarray:
    """How far fp8 and int8 may stand from each number."""
    largest = np.abs(w).max(1, keepdims=True)
    if weights == "fp8":  # 3 bits after the leading one; below 2^-6 of 448 the steps stay 2^-9 wide
        return np.maximum(np.abs(w) / 16, largest * 2**-9 / 448) * 1.0001
    return largest * (1 / 254 + (FLOAT16 if quantizer == "bitsandbytes" else 1e-6))


def of_blocks(w: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    """How far nf4 may stand from each number: as the nearest level, and what the block's scale may be off."""
    blocks = np.pad(w.ravel(), (0, -w.size % 64)).reshape(-1, 64)
    largest = np.abs(blocks).max(1, keepdims=True)
    divided = np.divide(blocks, largest, out=np.zeros_like(blocks), where=largest > 0)
    away = np.abs(divided[..., None] - nf4_levels().numpy()).min(-1) * largest + largest * 1e-6
    if quantizer == "torchao":  # levels of four digits; scales in 8 bits of what the 256 of a group are off their mean
        off = np.abs(largest - largest.mean()).reshape(-1, np.gcd(len(largest), 256)).max(1)
        away += largest * 1e-4 + np.repeat(off, len(largest) // len(off))[:, None] / 127
    return away.ravel()[: w.size].reshape(w.shape)


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("weights", "quantizer"), PAIRS)
def test_a_weight_is_within_what_its_format_says(
    weights: Weights, quantizer: Quantizer, shape: tuple[int, int], dtype: torch.dtype, device: str
) -> None:
    chosen, w = form(weights, quantizer), weight(shape, dtype)
    stored = chosen.pack(w.to(device))
    made = chosen.unpack(stored, shape, torch.float32).cpu()
    exact = w.double().numpy()
    bound = of_blocks(exact, quantizer) if weights == "nf4" else of_rows(exact, weights, quantizer)
    error = np.abs(made.double().numpy() - exact)
    assert made.dtype == torch.float32
    assert (error <= bound + 1e-12).all(), (error - bound).max()
    if min(shape) > 9:
        assert error.max() > 0.1 * bound.max()  # it does lose something
        assert not made[3].any() or weights == "nf4"  # there a row's last numbers share a block with the next row
    half = chosen.unpack(stored, shape, torch.bfloat16).cpu()
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), made, rtol=2**-7, atol=0)  # bitsandbytes 0.48 rounds twice


@pytest.mark.parametrize(("weights", "quantizer"), PAIRS)
def test_zeros_are_zeros(weights: Weights, quantizer: Quantizer) -> None:
    chosen, w = form(weights, quantizer), weight((8, 64))
    assert not chosen.unpack(chosen.pack(w), (8, 64), torch.float32)[3].any()
    nothing = torch.zeros(8, 64)
    assert not chosen.unpack(chosen.pack(nothing), (8, 64), torch.float32).any()


@pytest.mark.parametrize("quantizer", ["torchao", "bitsandbytes"])
def test_numbers_that_float16_does_not_hold_are_no_other(quantizer: Quantizer) -> None:
    chosen, w = form("int8", quantizer), weight((16, 32))
    expected = chosen.unpack(chosen.pack(w), (16, 32), torch.float32)
    lowest = -60 if quantizer == "bitsandbytes" else -5  # torchao's scale is at least 2^-23
    for exponent in (100, 20, lowest):
        made = chosen.unpack(chosen.pack(w * 2.0**exponent), (16, 32), torch.float32)
        assert torch.equal(made * 2.0**-exponent, expected)


#: bytes a number and bytes a row of 512 more: of the scales, of 64 numbers or of a row
KEPT = {
    ("fp8", "torchao"): 1 + 4 / 512, ("int8", "torchao"): 1 + 4 / 512, ("int8", "bitsandbytes"): 1 + 4 / 512,
    ("nf4", "torchao"): 0.5 + 1 / 64 + 4 / 64 / 256, ("nf4", "bitsandbytes"): 0.5 + 4 / 64,
}  # fmt: skip


@pytest.mark.parametrize(("weights", "quantizer"), PAIRS)
def test_what_is_kept_is_as_small_as_it_says(weights: Weights, quantizer: Quantizer) -> None:
    stored = form(weights, quantizer).pack(weight((128, 512)))
    kept = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    assert kept == pytest.approx(KEPT[weights, quantizer] * 128 * 512, abs=68)  # a table of levels and a mean


def frozen(weights: Weights, quantizer: Quantizer, shape: tuple[int, int], dtype: torch.dtype) -> FrozenLinear:
    chosen = form(weights, quantizer)
    base = nn.Linear(shape[1], shape[0]).to(dtype).requires_grad_(False)
    base.weight.copy_(weight(shape))
    return FrozenLinear(chosen, base, chosen.pack(base.weight))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("shape", [(70, 33), (40, 96), (5, 1)])
@pytest.mark.parametrize(("weights", "quantizer"), PAIRS)
def test_a_linear_and_its_gradient_are_those_of_the_weight(
    weights: Weights, quantizer: Quantizer, shape: tuple[int, int], dtype: torch.dtype, rtol: float
) -> None:
    linear = frozen(weights, quantizer, shape, dtype)
    x = torch.randn(2, 3, shape[1], generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    dy = torch.randn(2, 3, shape[0], generator=torch.Generator().manual_seed(3)).to(dtype)
    y = linear(x)
    y.backward(dy)
    stands_for = linear.weight.double()
    assert x.grad is not None
    assert linear.bias is not None
    for made, exact, size in (
        (
            y,
            x.double() @ stands_for.T + linear.bias.double(),
            x.double().abs() @ stands_for.abs().T + linear.bias.abs(),
        ),
        (x.grad, dy.double() @ stands_for, dy.double().abs() @ stands_for.abs()),
    ):
        assert ((made.double() - exact).abs() <= rtol * size.detach()).all()  # rounding is of the summands' size


@pytest.mark.parametrize(("weights", "quantizer"), PAIRS)
def test_codes_survive_a_change_of_the_networks_type(weights: Weights, quantizer: Quantizer) -> None:
    linear = frozen(weights, quantizer, (40, 96), torch.float32)
    before = linear.weight_as(torch.float32)
    assert torch.equal(linear.to(torch.bfloat16).weight_as(torch.float32), before)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("weights", "quantizer"), PAIRS)
def test_a_block_that_waits_elsewhere_gives_the_same_bits(
    small, weights: Weights, quantizer: Quantizer, checkpointing: bool
) -> None:
    form(weights, quantizer)
    rows = ("student", "teacher", None, "student")
    here = small(layers=3, weights=weights, quantizer=quantizer)
    how = {"offload_blocks": 2, "gradient_checkpointing": checkpointing}
    there = small(layers=3, weights=weights, quantizer=quantizer, **how)
    assert torch.equal(there.sample(*rows), here.sample(*rows))
    for mine, its in zip(there.gradient(*rows), here.gradient(*rows), strict=True):
        assert torch.equal(mine, its)
        assert mine.abs().max() > 0


def test_int8_is_what_bitsandbytes_makes_of_float16() -> None:
    chosen, w = form("int8", "bitsandbytes"), weight((40, 96), torch.bfloat16)
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant

    codes, largest, _ = int8_vectorwise_quant(w.half())
    stored = chosen.pack(w)
    assert torch.equal(stored["codes"], codes)
    assert torch.equal(stored["largest"].view(torch.float32), largest)
    made = chosen.unpack(stored, (40, 96), torch.float32)
    torch.testing.assert_close(made, int8_vectorwise_dequant(codes, largest), rtol=3e-7, atol=0)


def test_nf4_is_what_bitsandbytes_makes() -> None:
    chosen, w = form("nf4", "bitsandbytes"), weight((40, 192), torch.bfloat16)
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    codes, state = quantize_4bit(w, blocksize=64, quant_type="nf4")
    stored = chosen.pack(w)
    assert torch.equal(stored["codes"], codes)
    assert torch.equal(stored["scale"].view(torch.float32), state.absmax)
    assert torch.equal(chosen.unpack(stored, (40, 192), torch.bfloat16), dequantize_4bit(codes, state))


@pytest.mark.parametrize("weights", ["fp8", "int8", "nf4"])
def test_torchao_holds_the_same_in_its_own_linear(weights: Weights) -> None:
    chosen, w = form(weights, "torchao"), weight((128, 256))
    w[3] = 1  # of a row of zeros it makes NaN or another number
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_, to_nf4

    if weights == "nf4":
        theirs = to_nf4(w).get_original_weight()
    else:
        linear = nn.Linear(256, 128, bias=False)
        linear.weight.data.copy_(w)
        kind = Float8WeightOnlyConfig if weights == "fp8" else Int8WeightOnlyConfig
        quantize_(linear, kind(set_inductor_config=False))
        theirs = linear.weight.dequantize()  # pyright: ignore[reportCallIssue]
    assert torch.equal(chosen.unpack(chosen.pack(w), (128, 256), torch.float32), theirs)


def test_our_nf4_is_that_of_bitsandbytes() -> None:
    """Of bfloat16 weights both have the same scales, so codes differ only halfway between two levels."""
    theirs, ours, w = form("nf4", "bitsandbytes"), form_of("nf4", "own"), weight((300, 512), torch.bfloat16)
    stored = ours.pack(w)["codes"].flatten()
    codes = torch.stack([stored >> 4, stored & 15], 1).flatten().int()
    stored = theirs.pack(w)["codes"].flatten()
    others = torch.stack([stored >> 4, stored & 15], 1).flatten().int()
    blocks = w.double().view(-1, 64)
    divided = (blocks / blocks.abs().amax(1, keepdim=True).clamp_min(1e-30)).flatten()
    between = (nf4_levels()[1:] + nf4_levels()[:-1]) / 2
    halfway = (divided[:, None] - between).abs().amin(1) < 1e-6
    halfway |= (blocks == 0).all(1).repeat_interleave(64)  # older ones have another code there
    assert torch.equal(codes[~halfway], others[~halfway])
    mine, its = (one.unpack(one.pack(w), (300, 512), torch.float32) for one in (ours, theirs))
    apart = ((mine - its).abs().view(-1, 64) / blocks.abs().amax(1, keepdim=True).clamp_min(1e-30)).flatten()
    assert apart[~halfway].max() < MOST_APART


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            NetworkMemory("fp8", quantizer="bitsandbytes"),
            "memory.quantizer: bitsandbytes makes no fp8 weights; "
            "write quantizer: own or torchao, or weights: int8 or nf4",
        ),
        (
            NetworkMemory(quantizer="torchao"),
            "memory.quantizer: torchao makes no bf16 weights; write quantizer: own, or weights: fp8 or int8 or nf4",
        ),
    ],
)
def test_what_a_package_lacks_is_told_with_the_nearest(how: NetworkMemory, said: str) -> None:
    pytest.importorskip(how.quantizer)
    assert list(how.check(60)) == [said]
    with pytest.raises(CloraError, match="makes no"):
        form_of(how.weights, how.quantizer)


@pytest.mark.parametrize("quantizer", ["torchao", "bitsandbytes"])
def test_a_missing_or_old_package_is_told_by_name(quantizer: Quantizer, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    least = ".".join(map(str, OLDEST[quantizer]))
    said = f"memory.quantizer: {quantizer} needs the package {quantizer} {least} or newer"
    how = NetworkMemory("nf4", quantizer=quantizer)
    monkeypatch.setattr("clora.toolkit.memory.quantizers.version", missing)
    assert list(how.check(60)) == [f"{said}, which is not installed"]
    assert list(NetworkMemory("nf4").check(60)) == []
    monkeypatch.setattr("clora.toolkit.memory.quantizers.version", lambda name: "0.9.0")
    assert list(how.check(60)) == [f"{said}, 0.9.0 is installed"]
    for newer in (least, f"{least}.0.post1", "1.0rc1", "12.dev0"):
        monkeypatch.setattr("clora.toolkit.memory.quantizers.version", lambda name, newer=newer: newer)
        assert list(how.check(60)) == []


@pytest.mark.slow
def test_no_package_is_imported_before_it_is_asked_for() -> None:
    rooms = ("fit", "precision", "settings", "linear", "offload", "by_torchao", "by_bitsandbytes")
    code = f"import sys\nfor room in {rooms}: __import__(f'clora.toolkit.memory.{{room}}')\n"
    code += "from clora.toolkit.memory.quantizers import form_of\nform_of('nf4', 'own')\n"
    code += "assert not {'torchao', 'bitsandbytes'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""A number that is not finite is found wherever it stands and whatever its type, in one pass over the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clora.lora_io.header import LoraFileError
from clora.lora_io.reader import read_lora

TYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e5m2]


def write(path: Path, a: torch.Tensor) -> Path:
    save_file({"x.lora_A.weight": a.contiguous(), "x.lora_B.weight": torch.ones(3, a.shape[0], dtype=a.dtype)}, path)
    return path


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_number_anywhere_is_found(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    for inputs in (1, 5, 64, 1031):  # shorter and longer than what a processor compares at once
        for at in sorted({0, inputs // 2, inputs - 1}):
            a = torch.linspace(-1, 1, 2 * inputs).view(2, inputs)
            a[1, at] = value
            path = write(tmp_path / "bad.safetensors", a.to(dtype))
            with pytest.raises(LoraFileError, match=r"NaN or infinity in 'x\.lora_A\.weight'"):
                read_lora(path, {"x": (inputs, 3)})


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_largest_numbers_of_a_type_are_finite(tmp_path: Path, dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max
    a = torch.tensor([[top, -top, 0.0]], dtype=torch.float64).to(dtype)
    (delta,) = read_lora(write(tmp_path / "large.safetensors", a), {"x": (3, 3)}).deltas.values()
    assert delta.a.double().tolist() == a.double().tolist()

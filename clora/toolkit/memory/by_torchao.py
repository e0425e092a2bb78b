"""Frozen weights as torchao's weight-only tensor classes keep them.

Their tensors are kept one by one, and the class is put around them to multiply them out, so that blocks wait elsewhere
and pass over the device as others do. Scales are float32, seen as int32: a network's change of type leaves them alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from clora.toolkit.memory.names import Weights
from clora.toolkit.memory.precision import NF4_BLOCK, Form, Stored, half_or_single, in_blocks, out_of_blocks

_LEAST = 1e-30  # a row's largest number, at least: torchao makes NaN of a row of zeros without
_SCALE_BLOCK = 256  # scales of 64 numbers that share one scale of theirs
_ZEROS = 0x77  # the two codes of 0


def _rows(weight: torch.Tensor) -> torch.Tensor:
    """The weight as float32; torchao takes a row of one number for no row, so such a one gets a zero beside it."""
    made = weight.detach().float().contiguous()
    return torch.nn.functional.pad(made, (0, 1)) if made.shape[1] == 1 else made


class Fp8:
    """float8_e4m3fn with a scale for every output row: 3 bits of mantissa, so within 1/16 of each number."""

    def pack(self, weight: torch.Tensor) -> Stored:
        from torchao.quantization import Float8Tensor  # pyright: ignore[reportMissingImports]

        # with a least number it is torch's arithmetic, whatever package of kernels is installed
        made = Float8Tensor.from_hp(_rows(weight), torch.float8_e4m3fn, hp_value_lb=_LEAST)
        return {"codes": made.qdata.view(torch.uint8), "scale": made.scale.view(torch.int32)}

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        from torchao.quantization import Float8Tensor  # pyright: ignore[reportMissingImports]

        codes, scale = stored["codes"].view(torch.float8_e4m3fn), stored["scale"].view(torch.float32)
        return Float8Tensor(codes, scale, [1, codes.shape[1]], dtype=dtype).dequantize()[:, : shape[1]]


class Int8:
    """-128 .. 127 with a scale for every output row, which is 1/127.5 of its largest number and at least 2^-23."""

    def pack(self, weight: torch.Tensor) -> Stored:
        from torchao.quantization import Int8Tensor, PerRow  # pyright: ignore[reportMissingImports]

        made = Int8Tensor.from_hp(_rows(weight), PerRow())
        return {"codes": made.qdata, "scale": made.scale.view(torch.int32)}

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        from torchao.quantization import Int8Tensor  # pyright: ignore[reportMissingImports]

        codes, scale = stored["codes"], stored["scale"].view(torch.float32)
        made = Int8Tensor(codes, scale, [1, codes.shape[1]], half_or_single(dtype)).dequantize()
        return made[:, : shape[1]].to(dtype)


class Nf4:
    """4-bit NormalFloat in blocks of 64 along the rows, and their scales in 8 bits (QLoRA's double quantisation)."""

    def pack(self, weight: torch.Tensor) -> Stored:
        from torchao.quantization import to_nf4  # pyright: ignore[reportMissingImports]

        blocks = in_blocks(weight)
        made = to_nf4(blocks, NF4_BLOCK, math.gcd(len(blocks), _SCALE_BLOCK))
        # torchao divides a block of zeros by zero
        codes = made.quantized_data.view(len(blocks), -1).masked_fill((blocks == 0).all(1, keepdim=True), _ZEROS)
        return {
            "codes": codes,
            "scale": made.quantized_scalers,
            "factor": made.quantization_factor.view(torch.int32),
            "mean": made.scaler_mean.view(torch.int32),
            "levels": made.nf4.view(torch.int32),
        }

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        from torchao.quantization import NF4Tensor  # pyright: ignore[reportMissingImports]
        from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import SubclassTensorArgs  # pyright: ignore[reportMissingImports]

        count, factor = len(stored["scale"]), stored["factor"].view(torch.float32)
        device, blocks = factor.device, torch.Size((count, NF4_BLOCK))
        build: Any = NF4Tensor  # its constructors are wrapped in what pyright cannot read
        made = build(
            SubclassTensorArgs(blocks, (NF4_BLOCK, 1), 0, torch.float32, device, False),
            NF4_BLOCK,
            count,
            count // len(factor),
            stored["scale"],
            factor,
            stored["mean"].view(torch.float32),
            stored["codes"].flatten(),
            stored["levels"].view(torch.float32),
        )
        return out_of_blocks(made.get_original_weight(), shape).to(dtype)


FORMS: Mapping[Weights, Form] = {"fp8": Fp8(), "int8": Int8(), "nf4": Nf4()}

"""Frozen weights as bitsandbytes keeps them: LLM.int8's rows (Dettmers et al. 2022) and QLoRA's 4-bit NormalFloat.

Its tensors are kept one by one, without its classes, so that blocks wait elsewhere and pass over the device as others
do. Scales are float32, seen as int32: a network's change of type leaves them alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from clora.toolkit.memory.names import Weights
from clora.toolkit.memory.precision import NF4_BLOCK, Form, Stored, half_or_single, in_blocks, out_of_blocks

_LEAST_EXPONENT = -100  # of a row; 2^100 and its numbers are still floats


class Int8:
    """-127 .. 127 with a scale for every output row: within 1/254 of the row's largest number.

    bitsandbytes takes float16 alone, so each row is first brought to 1/2 .. 1 by a power of two, which changes no code
    of a row that float16 can hold.
    """

    def pack(self, weight: torch.Tensor) -> Stored:
        from bitsandbytes.functional import int8_vectorwise_quant  # pyright: ignore[reportMissingImports]

        weight = weight.detach().float()
        exponent = torch.frexp(weight.abs().amax(1)).exponent.clamp_min(_LEAST_EXPONENT)
        codes, largest, _ = int8_vectorwise_quant(torch.ldexp(weight, -exponent[:, None]).half())
        return {"codes": codes, "largest": torch.ldexp(largest, exponent).view(torch.int32)}

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        # as its own layer does for a backward pass: its function for this makes two float32 copies on the way
        return stored["codes"].to(dtype).mul_(stored["largest"].view(torch.float32)[:, None] / 127)


class Nf4:
    """4-bit NormalFloat in blocks of 64 along the rows, two numbers a byte, and a float32 scale a block.

    It is given the blocks as rows, in place of the weight: of rows that are no whole blocks its kernel for CPUs
    (0.50.2) takes another block's scales.
    """

    def pack(self, weight: torch.Tensor) -> Stored:
        from bitsandbytes.functional import quantize_4bit  # pyright: ignore[reportMissingImports]

        codes, state = quantize_4bit(in_blocks(weight), blocksize=NF4_BLOCK, quant_type="nf4")
        return {"codes": codes, "scale": state.absmax.view(torch.int32)}

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit  # pyright: ignore[reportMissingImports]

        scale = stored["scale"].view(torch.float32)
        blocks = torch.Size((len(scale), NF4_BLOCK))
        state = QuantState(scale, blocks, blocksize=NF4_BLOCK, quant_type="nf4", dtype=half_or_single(dtype))
        return out_of_blocks(dequantize_4bit(stored["codes"], state), shape).to(dtype)


FORMS: Mapping[Weights, Form] = {"int8": Int8(), "nf4": Nf4()}

"""Frozen weights in few bits: fp8 and int8 with one scale a row, nf4 with one scale for 64 numbers.

Plain torch, so that it is the same on every device. At the thousands of tokens of a picture the multiplying out costs
little beside the product itself, and no package has to be installed; `quantizers` has those of packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Protocol

import torch

from clora.toolkit.memory.names import Weights

FP8_MAX = 448.0  # the largest number of float8_e4m3fn
NF4_BLOCK = 64

#: the tensors that stand for one weight; none is of a float8 type, which `module.to(dtype)` would convert
Stored = Mapping[str, torch.Tensor]


class Form(Protocol):
    """One way to keep a weight [out, in]."""

    def pack(self, weight: torch.Tensor) -> Stored:
        """The tensors to keep, on the weight's device."""
        ...

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """The weight [out, in] that they stand for, in a type to compute in."""
        ...


class Plain:
    """The weight as it is."""

    def pack(self, weight: torch.Tensor) -> Stored:
        return {"plain": weight.detach()}

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        return stored["plain"].to(dtype)


def _scales(largest: torch.Tensor, top: float) -> torch.Tensor:
    """What the code 1 stands for, rounded to bfloat16 before the codes are chosen: a bf16 product loses no more."""
    scale = (largest.float() / top).bfloat16()
    return torch.where(scale > 0, scale, torch.ones_like(scale))


class Fp8:
    """float8_e4m3fn with a scale for every output row: 3 bits of mantissa, so within 1/16 of each number."""

    def pack(self, weight: torch.Tensor) -> Stored:
        scale = _scales(weight.detach().abs().amax(1, keepdim=True), FP8_MAX)
        codes = (weight.detach().float() / scale.float()).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
        return {"codes": codes.view(torch.uint8), "scale": scale}

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        return stored["codes"].view(torch.float8_e4m3fn).to(dtype).mul_(stored["scale"].to(dtype))


class Int8:
    """-127 .. 127 with a scale for every output row: within 1/254 of the row's largest number."""

    def pack(self, weight: torch.Tensor) -> Stored:
        scale = _scales(weight.detach().abs().amax(1, keepdim=True), 127.0)
        codes = (weight.detach().float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
        return {"codes": codes, "scale": scale}

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        return stored["codes"].to(dtype).mul_(stored["scale"].to(dtype))


@cache
def nf4_levels() -> torch.Tensor:
    """The 16 levels of 4-bit NormalFloat in [-1, 1], float64: a normal's quantiles (QLoRA, Dettmers et al. 2023)."""
    end = 0.9677083  # halfway between the outermost quantiles of 15 and 16 levels, averaged over both tails
    above = torch.special.ndtri(torch.linspace(end, 0.5, 9, dtype=torch.float64))[:-1]
    below = -torch.special.ndtri(torch.linspace(end, 0.5, 8, dtype=torch.float64))[:-1]
    levels = torch.cat([above, below, torch.zeros(1, dtype=torch.float64)]).sort().values
    return levels / levels.max()


@cache
def _pairs(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The two numbers that each byte stands for, [256, 2]."""
    byte = torch.arange(256)
    return nf4_levels()[torch.stack([byte >> 4, byte & 15], 1)].to(device, dtype)


def in_blocks(weight: torch.Tensor) -> torch.Tensor:
    """The numbers row by row as float32 [blocks, 64]; the last block is filled with zeros."""
    flat = weight.detach().float().flatten()
    return torch.nn.functional.pad(flat, (0, -flat.numel() % NF4_BLOCK)).view(-1, NF4_BLOCK)


def out_of_blocks(blocks: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """The weight whose `in_blocks` they are."""
    return blocks.flatten()[: shape[0] * shape[1]].view(shape)


def half_or_single(dtype: torch.dtype) -> torch.dtype:
    """The type itself if it has 16 bits, else float32: what packages can multiply out to."""
    return dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32


class Nf4:
    """4-bit NormalFloat in blocks of 64 along the rows, two numbers a byte; the last block is filled with zeros."""

    def pack(self, weight: torch.Tensor) -> Stored:
        flat = in_blocks(weight)
        scale = _scales(flat.abs().amax(1, keepdim=True), 1.0)
        levels = nf4_levels().to(flat.device, torch.float32)
        between = (levels[1:] + levels[:-1]) / 2
        codes = torch.bucketize(flat / scale.float(), between, out_int32=True).to(torch.uint8).view(-1, 2)
        return {"codes": codes[:, 0] << 4 | codes[:, 1], "scale": scale}

    def unpack(self, stored: Stored, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        codes = stored["codes"]
        numbers = _pairs(dtype, codes.device)[codes.int()].view(-1, NF4_BLOCK).mul_(stored["scale"].to(dtype))
        return out_of_blocks(numbers, shape)


FORMS: Mapping[Weights, Form] = {"fp32": Plain(), "bf16": Plain(), "fp8": Fp8(), "int8": Int8(), "nf4": Nf4()}

#: the type of a network whose weights are not quantised
DTYPES: Mapping[Weights, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

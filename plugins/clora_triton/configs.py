"""Tile sizes that each kernel can be launched with, and which one is taken before any has been measured.

No entry here comes from a measurement: they are reasoned from an H200's numbers (132 multiprocessors, 227 KiB of
shared memory and 64 Ki registers each, 4.3 TB/s from memory), to be searched by whoever has a GPU.

- shrink, ds: bound by the reading of x (or dy). Every program reads all of A from the L2 cache, so few rows a tile cost
  L2 traffic (rank * width per tile) and many leave multiprocessors idle: 64 rows until the tiles are fewer than those.
- expand: bound by reading and writing y; the inner axis is the rank alone, so there is nothing to pipeline.
- fused: a plain GEMM tile, 128 x 256 with 64 steps deep, whose accumulator is 128 registers of each of 256 threads.
- outer (dA, dB): a program owns [block_n, rank] and walks `chunk` rows. More rows a chunk: fewer partial results
  (each rank * width in float32, written and read once), fewer programs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from attrs import frozen

Kernel = Literal["shrink", "expand", "fused", "backward", "outer"]

#: multiprocessors to keep busy where no device can be asked
ASSUMED_PROCESSORS = 132
#: shared memory of the smallest GPU to run on unasked (Turing's 64 KiB)
ASSUMED_SHARED = 64 * 1024


@frozen
class Config:
    """One way to cut a kernel's work; block_m counts rows, block_n wide output columns, block_k the reduced axis."""

    block_m: int = 64
    block_n: int = 128
    block_k: int = 64
    block_r: int = 128  # ranks a program takes at most; more ranks take more programs
    chunk: int = 1024  # rows that one program of an outer product adds up
    group: int = 8  # row tiles that share a column tile while it is in the L2 cache
    warps: int = 8
    stages: int = 3
    descriptors: bool = False  # x and W by tensor descriptors (Hopper's copy engine), where their strides allow it

    def ranks(self, rank: int) -> int:
        """Width of a rank block: a power of two that the tensor cores take (16 or more)."""
        return max(16, min(self.block_r, 1 << (max(rank, 1) - 1).bit_length()))


#: from the one to be preferred to the one that any GPU can hold
CONFIGS: dict[Kernel, tuple[Config, ...]] = {
    "shrink": (
        Config(block_m=64, block_k=128, warps=4, stages=3),
        Config(block_m=64, block_k=64, warps=4, stages=4),
        Config(block_m=128, block_k=64, warps=8, stages=4),
        Config(block_m=32, block_k=128, warps=4, stages=3),
        Config(block_m=16, block_k=128, warps=4, stages=3),
        Config(block_m=32, block_k=64, warps=4, stages=2),
        Config(block_m=16, block_k=32, warps=4, stages=2),
    ),
    "expand": (
        Config(block_m=128, block_n=128, block_r=64, warps=8, stages=2),
        Config(block_m=64, block_n=256, block_r=64, warps=8, stages=2),
        Config(block_m=128, block_n=128, block_r=128, warps=8, stages=1),
        Config(block_m=64, block_n=64, block_r=32, warps=4, stages=1),
    ),
    "fused": (
        Config(block_m=128, block_n=256, block_k=64, block_r=64, warps=8, stages=3),
        Config(block_m=128, block_n=256, block_k=64, block_r=64, warps=8, stages=4),
        Config(block_m=128, block_n=256, block_k=64, block_r=64, warps=8, stages=3, descriptors=True),
        Config(block_m=128, block_n=256, block_k=64, block_r=64, warps=8, stages=4, descriptors=True),
        Config(block_m=256, block_n=128, block_k=64, block_r=64, warps=8, stages=3),
        Config(block_m=128, block_n=128, block_k=64, block_r=64, warps=8, stages=4),
        Config(block_m=128, block_n=128, block_k=64, block_r=64, warps=8, stages=4, descriptors=True),
        Config(block_m=128, block_n=128, block_k=64, block_r=64, warps=4, stages=3),
        Config(block_m=64, block_n=128, block_k=64, block_r=64, warps=4, stages=3),
        Config(block_m=64, block_n=64, block_k=32, block_r=32, warps=4, stages=2),
    ),
    "backward": (
        Config(block_m=64, block_n=128, block_k=64, chunk=2048, warps=8, stages=3),
        Config(block_m=64, block_n=128, block_k=64, chunk=1024, warps=8, stages=3),
        Config(block_m=64, block_n=128, block_k=64, chunk=512, warps=8, stages=3),
        Config(block_m=64, block_n=64, block_k=64, chunk=256, warps=4, stages=3),
        Config(block_m=32, block_n=64, block_k=32, block_r=64, chunk=256, warps=4, stages=2),
    ),
    "outer": (
        Config(block_m=64, block_n=128, chunk=2048, warps=8, stages=3),
        Config(block_m=64, block_n=128, chunk=1024, warps=8, stages=3),
        Config(block_m=64, block_n=128, chunk=512, warps=8, stages=3),
        Config(block_m=64, block_n=64, chunk=256, warps=4, stages=3),
        Config(block_m=32, block_n=64, block_r=64, chunk=256, warps=4, stages=2),
    ),
}


def shared_bytes(kernel: Kernel, config: Config, itemsize: int, factor_itemsize: int | None = None) -> int:
    """Shared memory that one program's operands take, pipelined where they are, at full rank block; an upper estimate.

    float32 masters beside half precision activations (factor_itemsize 4) are kept as they are until they are used.
    """
    m, n, k, r, stages = config.block_m, config.block_n, config.block_k, config.block_r, config.stages
    size = max(itemsize, factor_itemsize or itemsize)
    narrow = (m * itemsize + r * size) * k * stages + (r * k * itemsize if size > itemsize else 0)
    outer = (n + r) * m * itemsize * stages
    expand = (m * itemsize + n * size) * r
    return {
        "shrink": narrow,
        "expand": expand,
        "fused": max((m + n) * k * itemsize * stages, expand) + 8 * stages * config.descriptors,  # and barriers
        "backward": max(narrow, outer),
        "outer": outer,
    }[kernel]


class Work(NamedTuple):
    """What a launch has to do, as far as the best way to cut it depends on it."""

    kernel: Kernel
    rows: int
    width: int  # columns of the wide side: of x for a shrink, of y (or dx) for an expand and the fused, of dy, of x
    inner: int  # the reduced axis of the fused kernel's base product; 0 elsewhere
    rank: int
    itemsize: int  # bytes of a number of x or dy
    factor_itemsize: int  # bytes of a number of A or B

    def key(self) -> str:
        """Work of one key is cut alike; rows are counted in octaves."""
        octave = round(math.log2(max(self.rows, 1)))
        sizes = f"{self.itemsize}/{self.factor_itemsize} bytes"
        return f"{self.kernel} {self.inner}x{self.width} rank {self.rank} rows 2^{octave} {sizes}"


def outer_work(x: torch.Tensor, rows: int, width: int, rank: int) -> Work:
    """What dA has to do."""
    return Work("outer", rows, width, 0, rank, x.element_size(), x.element_size())


#: what was measured to be best, by device and key; see tuning.py
TUNED: dict[tuple[torch.device, str], Config] = {}


def fitting(work: Work, device: torch.device) -> tuple[Config, ...]:
    """What this device's shared memory holds, most preferred first: what there is to search."""
    return _fitting(work.kernel, work.itemsize, work.factor_itemsize, _device(device)[1])


def default(work: Work, device: torch.device) -> Config:
    """What was measured to be best; else the first that gives every multiprocessor a program, or the most programs."""
    if TUNED and (tuned := TUNED.get((device, work.key()))):
        return tuned
    return _default(work.kernel, work.rows, work.width, _device(device)[0], fitting(work, device))


def programs(kernel: Kernel, config: Config, rows: int, width: int) -> int:
    """How many programs a launch has for so many rows, and so many columns of the wide side."""
    tiles, columns, chunks = (-(-rows // config.block_m), -(-width // config.block_n), -(-rows // config.chunk))
    return {
        "shrink": tiles,
        "expand": tiles * columns,
        "fused": tiles * columns,
        "backward": tiles + chunks * columns,
        "outer": chunks * columns,
    }[kernel]


@lru_cache(maxsize=4096)
def _default(kernel: Kernel, rows: int, width: int, processors: int, choices: tuple[Config, ...]) -> Config:
    for config in choices:
        if programs(kernel, config, rows, width) >= processors:
            return config
    return max(choices, key=lambda config: programs(kernel, config, rows, width))


@lru_cache(maxsize=256)
def _fitting(kernel: Kernel, itemsize: int, factor_itemsize: int, shared: int) -> tuple[Config, ...]:
    choices = CONFIGS[kernel]
    fits = [c for c in choices if shared_bytes(kernel, c, itemsize, factor_itemsize) <= shared]
    if (
        kernel in ("fused", "expand") and itemsize == 4
    ):  # without tensor cores, operands take registers beside the accumulator
        fits = [c for c in fits if c.block_m * c.block_n <= 32 * 32 * c.warps]
    return tuple(fits) or choices[-1:]


@lru_cache(maxsize=64)
def _device(device: torch.device) -> tuple[int, int]:
    if device.type != "cuda":  # Triton interprets
        return ASSUMED_PROCESSORS, ASSUMED_SHARED
    properties = torch.cuda.get_device_properties(device)
    shared = getattr(properties, "shared_memory_per_block_optin", ASSUMED_SHARED)
    return properties.multi_processor_count, shared

"""What every launch needs on the host: checks that state expected and actual, and adapters as kernel arguments."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from attrs import frozen
from triton import knobs

from clora_triton.call import Dropout
from clora_triton.configs import Kernel, Work
from clora_triton.tiles import NUMBERS, TENSOR, UNSCALED

Scales = Sequence[float] | torch.Tensor | None
T = TypeVar("T", bound=Hashable)


def interpreting() -> bool:
    """True where Triton runs its kernels on the CPU (TRITON_INTERPRET=1 before it was imported)."""
    return bool(knobs.runtime.interpret)


def check_matrix(
    name: str, tensor: torch.Tensor, shape: Sequence[int | None], like: torch.Tensor | None = None
) -> None:
    """Raise ValueError where a tensor lacks this shape (None: any) or is on another device than `like`.

    Raises TypeError for a type that no kernel computes in, or another one than that of `like`.
    """
    if tensor.dim() != len(shape) or any(e is not None and e != n for n, e in zip(tensor.shape, shape, strict=True)):
        wanted = [("any" if n is None else n) for n in shape]
        raise ValueError(f"{name}: expected shape {wanted}, got {list(tensor.shape)}".replace("'", ""))
    if like is not None and tensor.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, got {tensor.device}")
    check_place(name, tensor)
    kinds = (torch.float32, torch.float16) if interpreting() else (torch.float32, torch.float16, torch.bfloat16)
    if tensor.dtype not in kinds:  # bfloat16 is refused where Triton interprets: its results there are wrong
        raise TypeError(f"{name}: expected {' or '.join(map(str, kinds))}, got {tensor.dtype}")
    if like is not None and tensor.dtype != like.dtype:
        raise TypeError(f"{name}: expected {like.dtype}, got {tensor.dtype}")


def check_place(name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError where the kernels cannot reach a tensor."""
    if tensor.device.type != ("cpu" if interpreting() else "cuda"):
        place = "the CPU (Triton interprets)" if interpreting() else "a CUDA device"
        raise ValueError(f"{name}: expected a tensor on {place}, got one on {tensor.device}")


def check_segments(rows: Sequence[int], which: Sequence[int], total: int, adapters: int) -> None:
    """Raise ValueError where segments do not cover `total` rows once, or IndexError where one names no adapter."""
    if len(rows) != len(which):
        raise ValueError(f"segments: expected one adapter index each, got {len(rows)} row counts, {len(which)} indices")
    if any(count < 0 for count in rows) or sum(rows) != total:
        raise ValueError(
            f"segments: expected row counts >= 0 that add up to {total}, got {list(rows)}, {sum(rows)} in all"
        )
    for index, adapter in enumerate(which):
        if not -1 <= adapter < adapters:
            raise IndexError(f"segment {index}: expected an adapter index from -1 to {adapters - 1}, got {adapter}")


def check_packed(name: str, packed: torch.Tensor, like: torch.Tensor, rank: int) -> None:
    """Raise ValueError where packed activations [M, >= rank] do not belong to like [M, ...] or lie strided in a row."""
    check_matrix(name, packed, (like.shape[0], None))
    if packed.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, got {packed.device}")
    if packed.shape[1] < rank or (packed.shape[1] > 1 and packed.stride(1) != 1):
        actual = f"{packed.shape[1]} of stride {packed.stride(1)}"
        raise ValueError(f"{name}: expected at least {rank} columns (the largest rank) of stride 1, got {actual}")


@frozen
class Factors:
    """The A (or B) of every adapter as kernel arguments: F(wide, rank) by pointer and two strides."""

    pointers: tuple[torch.Tensor, ...]
    strides_wide: tuple[int, ...]
    strides_rank: tuple[int, ...]
    ranks: tuple[int, ...]
    rank: int  # the largest
    itemsize: int  # bytes of a number

    @staticmethod
    def of(name: str, factors: Sequence[torch.Tensor], wide_axis: int, width: int, like: torch.Tensor) -> Factors:
        """Adapters [r, width] (wide_axis 1) or [width, r] (0), of any strides and of any one float type.

        Where their types differ (float32 masters beside a bfloat16 teacher) all are cast to that of `like`.
        """
        for index, factor in enumerate(factors):
            shape = (None, width) if wide_axis else (width, None)
            check_matrix(f"{name}[{index}]", factor, shape)
            if factor.device != like.device:
                raise ValueError(f"{name}[{index}]: expected device {like.device}, got {factor.device}")
            if not factor.shape[1 - wide_axis]:
                raise ValueError(f"{name}[{index}]: expected a rank of at least 1, got shape {list(factor.shape)}")
        if len({factor.dtype for factor in factors}) > 1:
            factors = [factor.to(like.dtype) for factor in factors]
        ranks = tuple(factor.shape[1 - wide_axis] for factor in factors)
        return Factors(
            tuple(factors) or (like,),
            once(tuple(factor.stride(wide_axis) for factor in factors) or (1,)),
            once(tuple(factor.stride(1 - wide_axis) for factor in factors) or (1,)),
            once(ranks or (0,)),
            max(ranks, default=0),
            factors[0].element_size() if factors else like.element_size(),
        )

    def work(self, kernel: Kernel, like: torch.Tensor, rows: int, width: int, inner: int = 0) -> Work:
        """What a launch with these factors has to do."""
        return Work(kernel, rows, width, inner, self.rank, like.element_size(), self.itemsize)


def once(values: tuple[T, ...]) -> tuple[T, ...]:
    """One value in place of many equal ones: what all adapters share, the compiler may know."""
    return values[:1] if len(set(values)) == 1 else values


def scale_arguments(scales: Scales, adapters: int, device: torch.device) -> dict[str, Any]:
    """The kernel arguments `scales` and `SCALES`; numbers and tensors may change without another compilation.

    A tensor must be on the device: it may then change between replays of a CUDA graph. Raises ValueError otherwise.
    """
    if scales is None:
        return {"scales": (1.0,), "SCALES": UNSCALED.value}
    if isinstance(scales, torch.Tensor):
        if scales.dim() != 1 or len(scales) != adapters or scales.device != device or not scales.is_contiguous():
            expected = f"[{adapters}] contiguous on {device}"
            raise ValueError(f"scales: expected {expected}, got {list(scales.shape)} on {scales.device}")
        return {"scales": scales if adapters else (1.0,), "SCALES": TENSOR.value if adapters else UNSCALED.value}
    if len(scales) != adapters:
        raise ValueError(f"scales: expected one for each of {adapters} adapters, got {len(scales)}")
    return {"scales": tuple(float(s) for s in scales) or (1.0,), "SCALES": NUMBERS.value}


def dropout_arguments(dropout: Dropout | None, adapters: int, like: torch.Tensor) -> dict[str, Any]:
    """The kernel arguments `seed`, `p` and `DROPOUT`.

    The seed is read on the device: it may then change between replays of a CUDA graph. Raises ValueError where there is
    not one share for every adapter, or where the seed is on another device than `like`.
    """
    if dropout is None or not adapters:
        return {"seed": like, "p": (0.0,), "DROPOUT": False}
    if len(dropout.p) != adapters:
        raise ValueError(f"dropout: expected one number for each of {adapters} adapters, got {len(dropout.p)}")
    if dropout.seed.device != like.device:
        raise ValueError(f"seed: expected device {like.device}, got {dropout.seed.device}")
    return {"seed": dropout.seed, "p": once(tuple(float(p) for p in dropout.p)), "DROPOUT": True}


def describable(tensor: torch.Tensor) -> bool:
    """True where the copy engine can read a matrix: rows without gaps, each beginning at a multiple of 16 bytes."""
    step = tensor.stride(0) * tensor.element_size()
    return tensor.stride(1) == 1 and step > 0 and step % 16 == 0 and tensor.data_ptr() % 16 == 0


def numeric_arguments(tensor: torch.Tensor) -> dict[str, Any]:
    """UPCAST for the interpreter's half precision, and PRECISION: float32 products are torch's own kind."""
    tf32 = tensor.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    upcast = interpreting() and tensor.dtype != torch.float32
    return {"UPCAST": upcast, "PRECISION": "tf32" if tf32 else "ieee"}


def launch(kernel: Any, grid: tuple[int, ...], on: torch.Tensor, *arguments: Any, **named: Any) -> None:
    """Run the kernel's programs on that tensor's device."""
    with torch.cuda.device(on.device) if on.is_cuda else nullcontext():
        kernel[grid](*arguments, **named)

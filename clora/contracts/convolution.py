"""What a backbone's `shapes()` says of a convolution that carries adapters: the size of its weight as a matrix.

A convolution y = W * x with W [out, in, kh, kw] is the matrix [out, in kh kw] on every patch of x. So its LoRA is two
matrices as a linear's is, A [r, in kh kw] and B [out, r], and only its forward pass and its files know of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TypeAlias

#: (height, width) of a convolution's kernel; () of a linear
Kernel2d: TypeAlias = "tuple[int, ...]"


class Convolution(tuple[int, int]):
    """(in_channels kh kw, out_channels) of a two-dimensional convolution of one group, which knows its kernel."""

    kernel: Kernel2d

    def __new__(cls, in_channels: int, out_channels: int, kernel: tuple[int, int]) -> Convolution:
        """The size of a weight [out_channels, in_channels, *kernel] as a matrix."""
        made = super().__new__(cls, (in_channels * prod(kernel), out_channels))
        made.kernel = tuple(kernel)
        return made

    def __getnewargs__(self) -> tuple[int, int, Kernel2d]:
        """What copies and other processes make it from."""
        return self[0] // prod(self.kernel), self[1], self.kernel

    @property
    def in_channels(self) -> int:
        """Channels of its input."""
        return self[0] // prod(self.kernel)

    def __repr__(self) -> str:
        """As it is made."""
        return f"Convolution({self.in_channels}, {self[1]}, {self.kernel})"


def kernel_of(shapes: Mapping[str, tuple[int, int]], name: str) -> Kernel2d:
    """The kernel of what a backbone's `shapes` has under a name; () of a linear, and of a name that it lacks."""
    size = shapes.get(name)
    return size.kernel if isinstance(size, Convolution) else ()


def weight_shape(size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of the weight: [out, in] of a linear, [out, in, kh, kw] of a convolution."""
    if isinstance(size, Convolution):
        return (size[1], size.in_channels, *size.kernel)
    return (size[1], size[0])


def told_size(size: tuple[int, int]) -> str:
    """A linear or a convolution in words, such as "a linear of 8 -> 16"."""
    if isinstance(size, Convolution):
        return f"a convolution of {size.in_channels} -> {size[1]} with a kernel of {' x '.join(map(str, size.kernel))}"
    return f"a linear of {size[0]} -> {size[1]}"

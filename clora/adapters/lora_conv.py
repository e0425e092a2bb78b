"""A frozen convolution whose rows may use different adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import conv2d

from clora.adapters.lora_linear import LoraModule, Routing

if TYPE_CHECKING:
    import torch


class LoraConv(LoraModule[nn.Conv2d]):
    """A frozen convolution of one group, padded with zeros, and the adapters that cover it.

    Raises TypeError for a grouped one, whose weight is no matrix on patches, and for other kinds of padding.
    """

    def __init__(self, base: nn.Conv2d, routing: Routing) -> None:
        super().__init__(base, routing)
        if base.groups != 1 or base.padding_mode != "zeros":
            raise TypeError(f"a convolution of {base.groups} groups, padded with {base.padding_mode}, takes no LoRA")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, in, H, W] -> [B, out, H', W'], each row with its own adapter.

        W * x + scale B (A * x): A [r, in, kh, kw] steps and pads as the base does, B [out, r] mixes its channels.
        """
        y, base, start = self.base(x), self.base, 0
        for rows, a, b, scale in self.segments(x):
            if a is not None and b is not None:
                kernel = a.to(x.dtype).view(a.shape[0], base.in_channels, *base.kernel_size)
                part = x[start : start + rows]
                shrunk = conv2d(part, kernel, None, base.stride, base.padding, base.dilation)
                change = conv2d(shrunk, (b.to(x.dtype) * scale)[:, :, None, None])
                y[start : start + rows] += change  # in place: no backward needs the base's own output
            start += rows
        return y

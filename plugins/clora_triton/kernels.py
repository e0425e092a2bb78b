"""The components of a recipe's `kernels:` section.

What computes is imported by the call: a recipe that is only looked at needs no torch. An import of what is there
already takes a microsecond, a linear a hundred.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from clora_triton.installed import has_triton

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from clora_triton.groups import Linear
    from clora_triton.op import Segment


@frozen
class Eager:
    """torch's own operations and gradients: what the others are compared with."""

    def __call__(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, segments: Sequence[Segment]
    ) -> torch.Tensor:
        """y = x W^T + b + scale (x A^T) B^T, row segment by row segment; x [B, ..., in] -> [B, ..., out]."""
        from torch.nn.functional import linear

        from clora_triton.checks import check_base, check_rows

        check_base(x, weight, bias)
        check_rows([rows for rows, *_ in segments], x.shape[0])
        y = linear(x, weight, bias)
        start = 0
        for rows, a, b, scale in segments:
            if a is not None and b is not None and rows:
                part, out = x[start : start + rows], y[start : start + rows]
                shrunk = part.reshape(-1, part.shape[-1]) @ a.to(y.dtype).T
                out.view(-1, out.shape[-1]).addmm_(shrunk, b.to(y.dtype).T, alpha=float(scale))
            start += rows
        return y

    def explain(self, device: torch.device) -> str:
        """What computes, and why."""
        return "torch's own operations, as the recipe asks"


@frozen
class Auto:
    """What is quickest: packed products on a CPU, the measured best of cuBLAS and Triton on a GPU."""

    def __call__(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, segments: Sequence[Segment]
    ) -> torch.Tensor:
        """x [B, ..., in] -> [B, ..., out]."""
        from clora_triton.op import lora_linear

        return lora_linear(x, weight, bias, segments)

    def group(self, x: torch.Tensor, linears: Sequence[Linear]) -> list[torch.Tensor]:
        """x [B, ..., in] -> [B, ..., out] of every linear."""
        from clora_triton.groups import lora_linears

        return lora_linears(x, linears)

    def mlp(self, x: torch.Tensor, up: Linear, down: Linear, activation: str) -> torch.Tensor:
        """down(activation(up(x))), x [B, ..., in] -> [B, ..., out].

        On a CPU, whose memory is large, from its parts: there a second pass of a GELU takes longer than it is worth.
        """
        from clora_triton.mlp import ACTIVATIONS, lora_mlp
        from clora_triton.op import lora_linear

        if x.device.type == "cpu":
            return lora_linear(ACTIVATIONS[activation].of(lora_linear(x, *up)), *down)
        return lora_mlp(x, up, down, activation=activation)

    def explain(self, device: torch.device) -> str:
        """What computes on this device, and why."""
        import torch

        if device.type != "cuda":
            how = f"packed products in torch, as there is no kernel for {device.type}; adapters of many rows are merged"
        elif not has_triton():
            how = "the quickest of cuBLAS's graphs, measured per shape; the package triton is not installed"
        else:
            name = torch.cuda.get_device_name(device)
            how = f"the quickest of cuBLAS's graphs and the Triton kernels on {name}, measured once per shape"
        kept = "; an MLP keeps one hidden tensor" if device.type != "cpu" else ""
        return f"{how}; q, k and v of one input together{kept}"


@frozen
class Triton:
    """The Triton kernels, whatever else would be quicker; they need a CUDA GPU."""

    def __call__(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, segments: Sequence[Segment]
    ) -> torch.Tensor:
        """x [B, ..., in] -> [B, ..., out]."""
        from clora_triton.op import lora_linear

        return lora_linear(x, weight, bias, segments, kernel="triton")

    def group(self, x: torch.Tensor, linears: Sequence[Linear]) -> list[torch.Tensor]:
        """x [B, ..., in] -> [B, ..., out] of every linear."""
        from clora_triton.groups import lora_linears

        return lora_linears(x, linears, kernel="triton")

    def mlp(self, x: torch.Tensor, up: Linear, down: Linear, activation: str) -> torch.Tensor:
        """down(activation(up(x))), x [B, ..., in] -> [B, ..., out]."""
        from clora_triton.mlp import lora_mlp

        return lora_mlp(x, up, down, activation=activation, kernel="triton")

    def check(self) -> Iterable[str]:
        """What is missing here."""
        import torch

        if not has_triton():
            yield "`triton` needs the package triton (pip install 'clora[triton]'); `auto` works without"
        elif not torch.cuda.is_available():
            yield "`triton` needs a CUDA GPU, and torch sees none here; `auto` works on every machine"

    def explain(self, device: torch.device) -> str:
        """What computes, and why."""
        return "the Triton kernels, as the recipe asks"

"""LoRA linears for batches whose rows use different adapters, forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clora.api import Component, hookimpl

if TYPE_CHECKING:
    from clora_triton.op import lora_linear as lora_linear

__all__ = ["clora_kernels", "lora_linear"]


def __getattr__(name: str) -> Any:
    """`clora_triton.lora_linear`, which brings torch, when it is first asked for."""
    if name == "lora_linear":
        from clora_triton.op import lora_linear

        return lora_linear
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@hookimpl
def clora_kernels() -> list[Component]:
    """Register the kernels `auto`, `eager` and `triton`."""
    from clora_triton.kernels import Auto, Eager, Triton

    return [Component("auto", Auto), Component("eager", Eager), Component("triton", Triton)]

"""LoRA linears for batches whose rows use different adapters, forward and backward.

For PEFT: `from clora_triton import use_with_peft; use_with_peft()`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clora.api import Component, hookimpl

if TYPE_CHECKING:
    from clora_triton.groups import lora_linears as lora_linears
    from clora_triton.mlp import lora_mlp as lora_mlp
    from clora_triton.op import lora_linear as lora_linear
    from clora_triton.peft import mixed_adapters as mixed_adapters, use_with_peft as use_with_peft

__all__ = ["clora_kernels", "lora_linear", "lora_linears", "lora_mlp", "mixed_adapters", "use_with_peft"]

_MODULES = {
    "lora_linear": "op",
    "lora_linears": "groups",
    "lora_mlp": "mlp",
    "mixed_adapters": "peft",
    "use_with_peft": "peft",
}


def __getattr__(name: str) -> Any:
    """`clora_triton.lora_linear` and its like, which bring torch or peft, when they are first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


@hookimpl
def clora_kernels() -> list[Component]:
    """Register the kernels `auto`, `eager` and `triton`."""
    return [
        Component("auto", "clora_triton.kernels:Auto"),
        Component("eager", "clora_triton.kernels:Eager"),
        Component("triton", "clora_triton.kernels:Triton"),
    ]

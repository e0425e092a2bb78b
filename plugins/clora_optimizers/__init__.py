"""Optimizers: AdamW with keys of its own, every class of torch.optim by its name, Muon on the adapter's matrices."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_optimizers() -> list[Component]:
    """Register the optimizers `adamw`, `torch` and `muon`."""
    return [
        Component("adamw", "clora_optimizers.adamw:AdamW"),
        Component("torch", "clora_optimizers.torch_class:TorchClass"),
        Component("muon", "clora_optimizers.muon:Muon"),
    ]

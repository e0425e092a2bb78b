"""Activation checkpointing whose second forward meets the same adapters as the first.

Which row uses which adapter is set around a forward pass; the second forward of a block happens in the backward pass,
when that setting is gone or another's.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from clora.adapters.lora_linear import LoraModule, Routing


def checkpointed(module: nn.Module, *args: Any) -> Any:
    """The module's output, keeping only its inputs; for diffusers' `enable_gradient_checkpointing`."""
    routing = _routing(module)
    if routing is None:
        return checkpoint(module, *args, use_reentrant=False, preserve_rng_state=False)
    runs, rows, turn, frozen = routing.runs, routing.rows, routing.turn, routing.frozen

    def again(*inputs: Any) -> Any:
        with routing.at(runs, rows, turn, frozen=frozen):
            return module(*inputs)

    return checkpoint(again, *args, use_reentrant=False, preserve_rng_state=False)


def _routing(module: nn.Module) -> Routing | None:
    return next((part.routing for part in module.modules() if isinstance(part, LoraModule)), None)

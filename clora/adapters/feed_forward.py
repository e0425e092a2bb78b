"""diffusers' FeedForward as one computation, for a kernel that keeps less of it than its parts would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from clora.adapters.lora_linear import LoraLinear
    from clora.contracts.loaded_backbone import JoinsMlp

#: where the two linears are in a FeedForward
UP, DOWN = "net.0.proj", "net.2"
#: diffusers' words for a GELU, and ours
_GELU: Mapping[str, Literal["gelu_tanh", "gelu"]] = {"tanh": "gelu_tanh", "none": "gelu"}


class LoraFeedForward(nn.Module):
    """Linear, GELU and linear, where both linears carry adapters; its parts keep their names."""

    def __init__(self, kernel: JoinsMlp, net: nn.ModuleList, activation: Literal["gelu_tanh", "gelu"]) -> None:
        super().__init__()
        self.kernel = kernel
        self.net = net
        self.activation: Literal["gelu_tanh", "gelu"] = activation

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """x [B, ..., in] -> [B, ..., out]; other arguments are ignored, as diffusers does."""
        first: Any = self.net[0]
        up: LoraLinear = first.proj
        down: Any = self.net[2]
        if not torch.compiler.is_compiling():  # a compiler chooses itself what to keep
            tables = up.segments(hidden_states), down.segments(hidden_states)
            if any(a is not None for table in tables for _, a, _, _ in table):
                before, behind = (
                    (linear.base.weight, linear.base.bias, table)
                    for linear, table in zip((up, down), tables, strict=True)
                )
                return self.kernel.mlp(hidden_states, before, behind, self.activation)
        for module in self.net:
            hidden_states = module(hidden_states)
        return hidden_states


def join_feed_forwards(network: nn.Module, linears: Mapping[str, LoraLinear], kernel: JoinsMlp) -> None:
    """Put a LoraFeedForward in the place of every FeedForward that it can stand for."""
    for target in linears:
        parent = target.removesuffix("." + UP)
        if parent != target and f"{parent}.{DOWN}" in linears:
            owner, _, leaf = parent.rpartition(".")
            feed_forward: Any = network.get_submodule(parent)
            activation = _activation(feed_forward, linears[target].base, linears[f"{parent}.{DOWN}"].base)
            if activation is not None:
                joined = LoraFeedForward(kernel, feed_forward.net, activation).train(feed_forward.training)
                setattr(network.get_submodule(owner), leaf, joined)


def _activation(feed_forward: Any, up: nn.Module, down: nn.Module) -> Literal["gelu_tanh", "gelu"] | None:
    """Its GELU; None where it is anything but two plain linears of one type with a GELU and nothing else between."""
    kind = type(feed_forward)
    if kind.__name__ != "FeedForward" or not kind.__module__.startswith("diffusers.") or len(feed_forward.net) != 3:
        return None
    if feed_forward._forward_hooks or feed_forward._forward_pre_hooks:
        return None
    if not (isinstance(up, nn.Linear) and isinstance(down, nn.Linear) and up.weight.dtype == down.weight.dtype):
        return None
    first, dropout, _ = feed_forward.net
    if type(first).__name__ != "GELU" or not isinstance(dropout, nn.Dropout) or dropout.p:
        return None
    return _GELU.get(first.approximate)

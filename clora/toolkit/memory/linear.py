"""A frozen linear whose weight is made when it is needed, in the forward pass and again in the backward pass."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import linear

from clora.toolkit.memory.precision import Form, Stored


class Elsewhere(Protocol):
    """Where an offloaded linear's tensors come from."""

    @property
    def blocks(self) -> Any:
        """What holds them, together with those of other linears."""
        ...

    def stored(self, *, grad: bool) -> Stored:
        """The tensors on the device, valid until another block's are asked for."""
        ...

    def at_rest(self) -> Stored:
        """The tensors where they wait, whatever is on the device."""
        ...


class _Product(torch.autograd.Function):
    """x W^T + b over x [N, in]; keeps no weight for dL/dx = dL/dy W, so only one is ever multiplied out."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, owner: FrozenLinear, grad: bool) -> torch.Tensor:
        ctx.owner = owner
        bias = None if owner.bias is None else owner.bias.to(x.dtype)
        return linear(x, owner.weight_as(x.dtype, grad=grad), bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grads[0] @ ctx.owner.weight_as(grads[0].dtype, grad=True), None, None


class FrozenLinear(nn.Module):
    """A linear that is never trained: its weight is stored in a form of its own, here or in CPU memory."""

    def __init__(self, form: Form, base: nn.Linear, stored: Stored) -> None:
        super().__init__()
        self.form = form
        self.in_features = base.in_features
        self.out_features = base.out_features
        self.bias = base.bias
        self.elsewhere: Elsewhere | None = None
        self.names = tuple(stored)
        for name, tensor in stored.items():
            self.register_buffer(name, tensor, persistent=False)

    def stored(self) -> Stored:
        """The tensors that lie here."""
        return {name: self.get_buffer(name) for name in self.names}

    def move_out(self, elsewhere: Elsewhere) -> None:
        """Let go of the tensors; from now on they come from elsewhere."""
        for name in self.names:
            delattr(self, name)
        self.elsewhere = elsewhere

    def weight_as(self, dtype: torch.dtype, *, grad: bool = False) -> torch.Tensor:
        """The weight [out, in] on the device; `grad` says that a backward pass will follow or is under way."""
        stored = self.stored() if self.elsewhere is None else self.elsewhere.stored(grad=grad)
        return self.form.unpack(stored, (self.out_features, self.in_features), dtype)

    @property
    def weight(self) -> torch.Tensor:
        """The weight as float32, made where it is kept; any thread may ask."""
        stored = self.stored() if self.elsewhere is None else self.elsewhere.at_rest()
        return self.form.unpack(stored, (self.out_features, self.in_features), torch.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]."""
        # inside the Function gradients are off, so whether this pass records any is asked here
        y: Any = _Product.apply(x.reshape(-1, self.in_features), self, torch.is_grad_enabled())
        return y.view(*x.shape[:-1], self.out_features)  # a Function's own view could not be added to in place

"""AdamW, with keys of its own in place of `train.betas` and `train.weight_decay`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import deep_iterable

from clora.api import WorksOn, between

if TYPE_CHECKING:
    import torch


@frozen
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as torch has it."""

    #: how much of the gradients' mean and of their squares' mean is kept at an update; each at least 0, less than 1
    betas: tuple[float, float] = field(default=(0.9, 0.999), validator=deep_iterable(between(0.0, 1.0, below=True)))
    #: the share that an update takes off a weight is the rate times this
    weight_decay: float = field(default=0.01, validator=between(0.0, 1.0))
    eps: float = field(default=1e-8, validator=between(1e-16, 1.0))  # added to the root that a step is divided by

    @property
    def works_on(self) -> WorksOn:
        """All numbers at once: the rule is elementwise."""
        return "weights"

    def make(self, parameters: Sequence[torch.Tensor], lr: float) -> torch.optim.Optimizer:
        """torch.optim.AdamW over the parameters."""
        import torch

        return torch.optim.AdamW(parameters, lr=lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)

    def state_per_weight(self) -> float:
        """Two moments."""
        return 2.0

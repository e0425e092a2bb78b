"""Muon on every A and B by itself: a step is the gradient's running mean with all singular values near one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import in_

from clora.api import WorksOn, between

if TYPE_CHECKING:
    import torch

ADJUSTMENTS = ("match_rms_adamw", "original")


@frozen
class Muon:
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) as torch has it, from 2.9 on.

    The adapter's A [r, in] and B [out, r] are made orthogonal one by one, by a Newton-Schulz iteration in bfloat16.
    """

    momentum: float = field(default=0.95, validator=between(0.0, 1.0, below=True))  # kept of the gradients' mean
    nesterov: bool = True  # looks one update ahead
    #: the share that an update takes off a weight is the rate times this
    weight_decay: float = field(default=0.01, validator=between(0.0, 1.0))
    ns_steps: int = field(default=5, validator=between(1, 99))  # iterations that make a step orthogonal
    #: match_rms_adamw: a step is as large as AdamW's, so a rate for AdamW serves (arXiv 2502.16982); original: by
    #: the root of a matrix's rows over its columns
    adjust_lr: Literal["match_rms_adamw", "original"] = field(default="match_rms_adamw", validator=in_(ADJUSTMENTS))

    @property
    def works_on(self) -> WorksOn:
        """Every matrix by itself."""
        return "matrices"

    def check(self) -> Iterable[str]:
        """A torch that is older than its Muon."""
        import torch

        if not hasattr(torch.optim, "Muon"):
            yield f"torch {torch.__version__} has no Muon; torch 2.9 and later have it"

    def make(self, parameters: Sequence[torch.Tensor], lr: float) -> torch.optim.Optimizer:
        """torch.optim.Muon over the matrices."""
        import torch

        return torch.optim.Muon(
            parameters,
            lr=lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=self.nesterov,
            ns_steps=self.ns_steps,
            adjust_lr_fn=self.adjust_lr,
        )

    def state_per_weight(self) -> float:
        """One running mean."""
        return 1.0

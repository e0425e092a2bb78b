"""Who makes an adapter's optimizer: the recipe's component, or AdamW with the keys of `train` where it names none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from attrs import field, frozen

from clora.plugin_system.guard import Owners, came

if TYPE_CHECKING:
    from clora.adapters.adapter import Adapter
    from clora.config.schema import Train
    from clora.contracts.optimizer import Optimizer

PLACE = "optimizer"


@frozen
class ChosenOptimizer:
    """The optimizer component of a recipe; None for AdamW with `train.betas` and `train.weight_decay`."""

    part: Optimizer | None = None
    owners: Owners = field(factory=Owners)

    @property
    def on_matrices(self) -> bool:
        """True where it needs the adapter's matrices, which lie beside the weights and wait in no other memory."""
        return self.part is not None and self.part.works_on == "matrices"

    def parameters(self, adapter: Adapter) -> Sequence[torch.Tensor]:
        """What of an adapter it works on: all numbers as one tensor, or every matrix by itself."""
        return adapter.matrices if self.on_matrices else [adapter.parameter]

    def make(self, parameters: Sequence[torch.Tensor], lr: float, train: Train) -> torch.optim.Optimizer:
        """A new optimizer over these parameters. Raises ComponentError where the component gives something else."""
        if self.part is None:
            return torch.optim.AdamW(parameters, lr=lr, betas=train.betas, weight_decay=train.weight_decay)
        with self.calling():
            made = self.part.make(parameters, lr)
        if not isinstance(made, torch.optim.Optimizer):
            raise self.owners.error(PLACE, f"its make() gave {came(made)}; expected a torch.optim.Optimizer")
        held = [id(parameter) for group in made.param_groups for parameter in group["params"]]
        if sorted(held) != sorted(map(id, parameters)):
            raise self.owners.error(
                PLACE, "its make() gave an optimizer of other parameters; expected all that it was given, each once"
            )
        return made

    def calling(self) -> AbstractContextManager[None]:
        """Within it the component's optimizer computes: what it raises is told by place and plugin."""
        return nullcontext() if self.part is None else self.owners.calling(PLACE)

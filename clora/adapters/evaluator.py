"""Evaluates the forwards that components ask for: packed into one batch, each row with its own adapter, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from clora.contracts.values import Conditions, Forward

if TYPE_CHECKING:
    from clora.adapters.adapted import AdaptedNetwork
    from clora.contracts.loaded_backbone import LoadedBackbone


class Evaluator:
    """Turns forwards into velocities on the one adapted network, and counts what they cost."""

    def __init__(self, backbone: LoadedBackbone, adapted: AdaptedNetwork, *, pack: bool = True) -> None:
        self.backbone = backbone
        self.adapted = adapted
        self.pack = pack
        self.row_forwards = 0.0  # rows evaluated; a row with gradient counts 3 (forward 1, its backward 2)

    def __call__(self, forwards: Sequence[Forward]) -> list[torch.Tensor]:
        """A velocity [R, C, H, W] for every forward; those of one kind run as one batch where packing is on."""
        if not self.pack:
            return [self._run([forward])[0] for forward in forwards]
        velocities: dict[int, torch.Tensor] = {}
        for grad in (False, True):
            group = [i for i, forward in enumerate(forwards) if forward.grad == grad]
            if group:
                velocities |= zip(group, self._run([forwards[i] for i in group]), strict=True)
        return [velocities[i] for i in range(len(forwards))]

    def _run(self, forwards: Sequence[Forward]) -> Sequence[torch.Tensor]:
        grad = forwards[0].grad
        sizes = [forward.x_sigma.shape[0] for forward in forwards]
        self.row_forwards += sum(sizes) * (3 if grad else 1)
        adapters = [name for forward in forwards for name in forward.adapters]
        # rows of one adapter are laid side by side: one small product per adapter instead of one per run of rows
        order = sorted(range(len(adapters)), key=lambda i: adapters[i] or "")
        moved = order != list(range(len(order)))
        x_sigma = torch.cat([forward.x_sigma for forward in forwards])
        sigma = torch.cat([forward.sigma for forward in forwards])
        conditions = Conditions.cat([forward.conditions for forward in forwards])
        if moved:
            x_sigma, sigma, conditions = x_sigma[order], sigma[order], conditions.take(order)
        with self.adapted.rows([adapters[i] for i in order]), torch.set_grad_enabled(grad):
            velocity = self.backbone.velocity(x_sigma, sigma, conditions)
            if moved:
                back = torch.empty(len(order), dtype=torch.long)
                back[order] = torch.arange(len(order))
                velocity = velocity[back]
        return velocity.split(sizes)

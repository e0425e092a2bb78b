"""Evaluates the forwards that components ask for: packed into one batch, each row with its own adapter, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from clora.adapters.features import features_of, listening
from clora.contracts.step import Forward, Inside
from clora.contracts.values import Conditions

if TYPE_CHECKING:
    from clora.adapters.adapted import AdaptedNetwork
    from clora.contracts.loaded_backbone import LoadedBackbone


class Evaluator:
    """Turns forwards into velocities, and features where asked for, on the adapted network; counts what they cost."""

    def __init__(self, backbone: LoadedBackbone, adapted: AdaptedNetwork, *, pack: bool = True) -> None:
        self.backbone = backbone
        self.adapted = adapted
        self.pack = pack
        self.row_forwards = 0.0  # rows evaluated; a row with gradient counts 3 (forward 1, its backward 2)

    def __call__(self, forwards: Sequence[Forward]) -> list[torch.Tensor | Inside]:
        """A velocity [R, C, H, W] or an Inside for every forward; those of a kind run as one batch where packing is on.

        Raises CloraError where features are asked of a backbone that shows none.
        """
        if not self.pack:
            return [self._run([forward])[0] for forward in forwards]
        kinds: dict[Any, list[int]] = {}
        for i in sorted(range(len(forwards)), key=lambda i: forwards[i].recorded):  # those without a graph first
            kinds.setdefault(_kind(forwards[i]), []).append(i)
        answers: dict[int, torch.Tensor | Inside] = {}
        for group in kinds.values():
            answers |= zip(group, self._run([forwards[i] for i in group]), strict=True)
        return [answers[i] for i in range(len(forwards))]

    def _run(self, forwards: Sequence[Forward]) -> Sequence[torch.Tensor | Inside]:
        recorded, frozen, depths = _kind(forwards[0])
        sizes = [forward.x_sigma.shape[0] for forward in forwards]
        self.row_forwards += sum(sizes) * (3 if recorded else 1)
        adapters = [name for forward in forwards for name in forward.adapters]
        # rows of one adapter are laid side by side: one small product per adapter instead of one per run of rows
        order = sorted(range(len(adapters)), key=lambda i: adapters[i] or "")
        back = _inverse(order)
        x_sigma = torch.cat([forward.x_sigma for forward in forwards])
        sigma = torch.cat([forward.sigma for forward in forwards])
        conditions = Conditions.cat([forward.conditions for forward in forwards])
        if back is not None:
            x_sigma, sigma, conditions = x_sigma[order], sigma[order], conditions.take(order)
        with self.adapted.rows([adapters[i] for i in order], frozen=frozen), torch.set_grad_enabled(recorded):
            found = self._computed(x_sigma, sigma, conditions, depths)
            velocity, *features = (each if back is None else each[back] for each in found)
        if not depths:
            return velocity.split(sizes)
        parts = zip(velocity.split(sizes), *(each.split(sizes) for each in features), strict=True)
        return [Inside(part[0], tuple(part[1:])) for part in parts]

    def _computed(
        self, x_sigma: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, depths: Sequence[float]
    ) -> list[torch.Tensor]:
        """The velocity, and the features [B, L, D] at each depth."""
        if not depths:
            return [self.backbone.velocity(x_sigma, sigma, conditions)]
        shows = features_of(self.backbone)
        with listening(shows.blocks(), depths) as noted:
            velocity = self.backbone.velocity(x_sigma, sigma, conditions)
        return [velocity, *(shows.features(noted[depth], x_sigma) for depth in depths)]


def _kind(forward: Forward) -> tuple[bool, bool, tuple[float, ...]]:
    """What forwards of a batch share: whether a graph is kept, whether no weight learns from it, the depths."""
    return forward.recorded, forward.recorded and not forward.grad, forward.depths


def _inverse(order: Sequence[int]) -> torch.Tensor | None:
    """Where each row went; None where all stay."""
    if list(order) == list(range(len(order))):
        return None
    back = torch.empty(len(order), dtype=torch.long)
    back[list(order)] = torch.arange(len(order))
    return back

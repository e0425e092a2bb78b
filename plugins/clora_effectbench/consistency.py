"""Subject consistency given success, in the shape of the paper's VSA, without a judge model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from clora_effectbench.distances import Judged


def subject_variance(truth: torch.Tensor) -> float | None:
    """How far apart subjects are under one effect: mean squared deviation of truths [N, 3, H, W] from their mean.

    The sum over pictures is divided by N - 1, so that few test pictures do not make it smaller; None for one picture.
    """
    from clora_effectbench.distances import squared_distance

    if len(truth) < 2:
        return None
    # Accumulated in float64 without a float64 copy of all pictures.
    mean = sum((picture.double() for picture in truth[1:]), truth[0].double()) / len(truth)
    return float(sum(squared_distance(picture[None], mean[None]) for picture in truth)) / (len(truth) - 1)


def consistency(judged: Judged, variance: float) -> torch.Tensor:
    """0 for a bad case, else 1 + 4 max(0, 1 - distance / variance), float64 [N] (the paper's VSA rule)."""
    import torch

    if variance > 0:
        kept = (1 - judged.distance / variance).clamp(min=0)
    else:  # all subjects look the same under this effect: only the exact truth keeps the subject
        kept = (judged.distance == 0).double()
    return torch.where(judged.bad, 0.0, 1 + 4 * kept)

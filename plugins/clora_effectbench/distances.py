"""The squared distance between pictures, smaller pictures for it, and the choice of the nearest candidate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import torch

#: numbers compared at once, so that a hundred pictures of 1024 x 1024 need no more than some hundred megabytes
_CHUNK = 1 << 23


def squared_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean over channels and pixels of (a - b)^2 for pictures [N, 3, H, W], summed in float64: [N]."""
    import torch

    rows = max(1, _CHUNK // max(1, a[0].numel()))
    parts = [
        (x.double() - y.double()).square().flatten(1).mean(1) for x, y in zip(a.split(rows), b.split(rows), strict=True)
    ]
    return torch.cat(parts)


def shrunk(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """Pictures [N, 3, H, W] with at most `size` pixels on their shorter side, each the mean of the area it covers.

    What two samplings never share, grain and shifts of a pixel or two, averages out; what an effect does stays.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = pictures.shape[-2:]
    shorter = min(height, width)
    if shorter <= size:
        return pictures
    small = (round(height * size / shorter), round(width * size / shorter))
    rows = max(1, _CHUNK // max(1, pictures[0].numel()))
    return torch.cat([interpolate(part.float(), small, mode="area") for part in pictures.split(rows)])


@frozen
class Judged:
    """One effect's outputs, judged: distance to the asked truth [N], whether it is a bad case [N], what came [N]."""

    distance: torch.Tensor  # float64
    bad: torch.Tensor  # bool
    nearest: torch.Tensor  # int64, an index into the candidates


def judge(output: torch.Tensor, asked: str, candidates: Mapping[str, torch.Tensor]) -> Judged:
    """Find the candidate nearest to every output [N, 3, H, W]; a tie with the asked truth is no bad case."""
    import torch

    table = torch.stack([squared_distance(output, picture) for picture in candidates.values()])  # [candidates, N]
    index = list(candidates).index(asked)
    distance, least = table[index], table.min(0)
    bad = least.values < distance
    return Judged(distance, bad, torch.where(bad, least.indices, index))

"""Small pieces the effects share; pictures here are float [B, 3, 32, 32] in [0, 1]."""

from __future__ import annotations

import torch
from torch.nn.functional import avg_pool2d, conv2d, grid_sample, max_pool2d, pad

SIZE = 32


def colour(code: str) -> torch.Tensor:
    """Return the colour of "#rrggbb" as [3, 1, 1]."""
    return torch.tensor([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]).view(3, 1, 1)


def luma(x: torch.Tensor) -> torch.Tensor:
    """Return the brightness [B, 1, 32, 32]."""
    return (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(-3, keepdim=True)


def places() -> tuple[torch.Tensor, torch.Tensor]:
    """Return row and column of every pixel, int64 [32, 32] each."""
    line = torch.arange(SIZE)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return rows, columns


def centred() -> tuple[torch.Tensor, torch.Tensor]:
    """Return y and x of every pixel centre, from -1 (top, left) to 1, [32, 32] each."""
    rows, columns = places()
    return (rows + 0.5) / SIZE * 2 - 1, (columns + 0.5) / SIZE * 2 - 1


def warp(x: torch.Tensor, at_y: torch.Tensor, at_x: torch.Tensor) -> torch.Tensor:
    """Return x read at the places [32, 32] given in centred coordinates, bilinear, the border continued."""
    where = torch.stack([at_x, at_y], dim=-1).expand(len(x), SIZE, SIZE, 2)
    return grid_sample(x, where, mode="bilinear", padding_mode="border", align_corners=False)


def blend(x: torch.Tensor, over: torch.Tensor, weight: torch.Tensor | float) -> torch.Tensor:
    """Return x covered by ``over`` where weight is 1, untouched where it is 0."""
    return x + (over - x) * weight


def blur(x: torch.Tensor, width: int) -> torch.Tensor:
    """Return x averaged over a square of odd ``width``, twice, the border continued."""
    edge = width // 2
    for _ in range(2):
        x = avg_pool2d(pad(x, (edge,) * 4, mode="replicate"), width, stride=1)
    return x


def ramp(level: torch.Tensor, *codes: str) -> torch.Tensor:
    """Return [B, 3, 32, 32]: the level [B, 1, 32, 32] in [0, 1] looked up along evenly spaced colours."""
    stops = torch.stack([colour(code) for code in codes])
    at = level.clamp(0, 1) * (len(codes) - 1)
    low = at.floor().clamp(max=len(codes) - 2)
    index = low.long().squeeze(-3)
    first, second = stops[index], stops[index + 1]  # [B, 32, 32, 3, 1, 1]
    share = (at - low).squeeze(-3)[..., None]
    mixed = first.flatten(-3) + (second - first).flatten(-3) * share
    return mixed.movedim(-1, -3)


def edges(x: torch.Tensor) -> torch.Tensor:
    """Return how steep the picture is, [B, 1, 32, 32] in [0, 1], the steepest of the three channels."""
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
    kernels = torch.stack([sobel, sobel.T])[:, None]
    planes = pad(x, (1, 1, 1, 1), mode="replicate").reshape(-1, 1, SIZE + 2, SIZE + 2)
    steep = conv2d(planes, kernels).square().sum(1).sqrt()
    return steep.view(len(x), 3, SIZE, SIZE).amax(1, keepdim=True).clamp(max=1)


def subject(x: torch.Tensor) -> torch.Tensor:
    """Return 1 on the subject and 0 on the white that reaches the border, [B, 1, 32, 32]."""
    white = (x.amin(-3, keepdim=True) > 0.97).to(x.dtype)
    border = torch.zeros(SIZE, SIZE)
    border[0], border[-1], border[:, 0], border[:, -1] = 1, 1, 1, 1
    reached = white * border
    for _ in range(2 * SIZE):  # far enough for any emoji; white enclosed by the subject is never reached
        reached = max_pool2d(reached, 3, stride=1, padding=1) * white
    return 1 - reached


def grow(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return a mask [B, 1, 32, 32] made wider by so many pixels on all sides."""
    return max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels)

"""Random numbers for effects with chance: every row has its own, whatever stands beside it in the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs
import torch
from torch.nn.functional import interpolate

from .tools import SIZE, places, warp


@attrs.frozen
class Chance:
    """One generator a row; every method gives [B, ...], row i from the i-th generator alone."""

    generators: tuple[torch.Generator, ...]

    @classmethod
    def of(cls, effect: str, subjects: Sequence[str], seed: int) -> Chance:
        """The generators of one draw of an effect: its name, the picture's and the draw's number decide them."""
        return cls(tuple(torch.Generator().manual_seed(_number(effect, subject, seed)) for subject in subjects))

    def uniform(self, *shape: int) -> torch.Tensor:
        """Numbers in [0, 1), [B, *shape]."""
        return torch.stack([torch.rand(shape, generator=each) for each in self.generators])

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers, [B, *shape]."""
        return torch.stack([torch.randn(shape, generator=each) for each in self.generators])

    def clouds(self, size: int, channels: int = 1) -> torch.Tensor:
        """A smooth field [B, channels, 32, 32] of about standard deviation 1 whose lumps are ``size`` pixels wide."""
        coarse = SIZE // size + 2
        field = self.normal(channels, coarse, coarse)
        wide = interpolate(field, scale_factor=size, mode="bicubic", align_corners=False)
        start = size // 2
        return wide[..., start : start + SIZE, start : start + SIZE] * 1.3

    def spots(self, count: int) -> torch.Tensor:
        """Places (row, column) in the picture, [B, count, 2]."""
        return self.uniform(count, 2) * SIZE


def _number(effect: str, subject: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{effect}/{subject}/{seed}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def away(spots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far every pixel centre lies below and to the right of each spot, [B, count, 32, 32] each."""
    rows, columns = places()
    return rows + 0.5 - spots[..., :1, None], columns + 0.5 - spots[..., 1:, None]


def discs(spots: torch.Tensor, radius: torch.Tensor | float) -> torch.Tensor:
    """Masks [B, count, 32, 32] that are 1 within ``radius`` ([B, count] or a number) of each spot."""
    down, right = away(spots)
    wide = radius[..., None, None] if isinstance(radius, torch.Tensor) else radius
    return (wide + 0.5 - (down.square() + right.square()).sqrt()).clamp(0, 1)


def bars(spots: torch.Tensor, angle: torch.Tensor, length: torch.Tensor | float, width: float) -> torch.Tensor:
    """Masks [B, count, 32, 32] of short strokes: ``length`` along ``angle`` [B, count], ``width`` across, in pixels."""
    down, right = away(spots)
    c, s = angle.cos()[..., None, None], angle.sin()[..., None, None]
    along, across = (c * right + s * down).abs(), (c * down - s * right).abs()
    half = length[..., None, None] / 2 if isinstance(length, torch.Tensor) else length / 2
    return (half + 0.5 - along).clamp(0, 1) * (width / 2 + 0.5 - across).clamp(0, 1)


def cells(spots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which spot is nearest to every pixel [B, 32, 32], and how much farther the second nearest is [B, 1, 32, 32]."""
    down, right = away(spots)
    distance, order = (down.square() + right.square()).sqrt().sort(1)
    return order[:, 0], (distance[:, 1] - distance[:, 0])[:, None]


def cell_means(x: torch.Tensor, cell: torch.Tensor, count: int) -> torch.Tensor:
    """Every cell in the average colour that x [B, 3, 32, 32] has there."""
    member = torch.nn.functional.one_hot(cell.flatten(1), count).to(x.dtype)  # [B, 1024, count]
    mean = (x.flatten(2) @ member) / member.sum(1, keepdim=True).clamp(min=1)
    return (mean @ member.transpose(1, 2)).view(x.shape)


def colours_at(x: torch.Tensor, spots: torch.Tensor) -> torch.Tensor:
    """The colours [B, count, 3] of x [B, 3, 32, 32] at the spots."""
    at = spots.long().clamp(max=SIZE - 1)
    index = (at[..., 0] * SIZE + at[..., 1])[:, None].expand(-1, 3, -1)
    return x.flatten(2).gather(2, index).transpose(1, 2)


def warp_rows(x: torch.Tensor, at_y: torch.Tensor, at_x: torch.Tensor) -> torch.Tensor:
    """As `warp`, every row [B, 32, 32] with places of its own."""
    return torch.cat([warp(x[i : i + 1], at_y[i], at_x[i]) for i in range(len(x))])


def over(x: torch.Tensor, masks: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Paint masks [B, count, 32, 32] one after the other in their colours [B, count, 3] or [count, 3]."""
    colours = colours.expand(len(x), masks.shape[1], 3)
    for i in range(masks.shape[1]):
        x = x + (colours[:, i, :, None, None] - x) * masks[:, i : i + 1]
    return x


def picked(chance: Chance, count: int, *codes: str) -> torch.Tensor:
    """Colours [B, count, 3], each one of ``codes`` by chance."""
    table = torch.tensor([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in codes])
    return table[(chance.uniform(count) * len(codes)).long()]

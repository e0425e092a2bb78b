"""How far pictures are from what an effect may make, where chance decides and no picture is the right one.

Both distances compare a set of pictures with a set of draws for the same sources: a blurred mean of all draws, which is
the nearest picture of all by squared distance, has neither their spectrum nor their patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from attrs import define, frozen

if TYPE_CHECKING:
    import torch

#: side of a patch in pixels, and along how many directions patches are compared
PATCH, DIRECTIONS = 5, 64
#: power below which a ring of the spectrum holds nothing: rounding to eight bits leaves about 1e-5
NOTHING = 1e-5


@frozen
class Texture:
    """A set's mean distances to the draws."""

    spectrum: float  # in nepers
    patches: float  # in units of the pictures, which lie in [-1, 1]


@define(eq=False, slots=False)
class Draws:
    """Fresh draws [K, N, 3, H, W] of an effect for N sources, K at least 2, that sets of N pictures are compared with.

    All in float64.
    """

    draws: torch.Tensor

    def distances(self, made: torch.Tensor) -> Texture:
        """From pictures [N, 3, H, W] to every draw in turn."""
        of_made = self._measured(made)
        return _mean((of_made, each) for each in self._each)

    @cached_property
    def among_themselves(self) -> Texture:
        """From every draw to every other: finitely many pictures never agree altogether, and no set comes nearer."""
        return _mean((self._each[i], self._each[j]) for i in range(len(self._each)) for j in range(i))

    @cached_property
    def _each(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [self._measured(draw) for draw in self.draws]

    @staticmethod
    def _measured(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return radial_spectrum(pictures), projected(pictures, directions())


def radial_spectrum(pictures: torch.Tensor) -> torch.Tensor:
    """S(k) = mean of |F(u, v)|^2 / (H W) over pictures, channels and k - 1/2 <= |(u, v)| < k + 1/2, [K], k = 1 ... K.

    Pictures are [N, 3, H, W]; (u, v) counts waves over the shorter side, and K is half of its pixels.
    """
    import torch

    height, width = pictures.shape[-2:]
    side = min(height, width)
    power = torch.fft.fft2(pictures.double()).abs().square().mean((0, 1)) / (height * width)
    u = torch.fft.fftfreq(height, 1 / side, dtype=torch.float64)
    v = torch.fft.fftfreq(width, 1 / side, dtype=torch.float64)
    ring = torch.floor((u[:, None].square() + v.square()).sqrt() + 0.5).long()
    return torch.stack([power[ring == k].mean() for k in range(1, side // 2 + 1)])


def spectrum_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over the rings [K] of |ln S_a(k) - ln S_b(k)|, in nepers: ln 2 where one has twice the power everywhere."""
    return float(((a + NOTHING).log() - (b + NOTHING).log()).abs().mean())


def projected(pictures: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """All patches of all pictures [N, 3, H, W] along each direction [D, 3 p p], sorted: [D, patches]."""
    from torch.nn.functional import conv2d

    side = math.isqrt(directions.shape[1] // 3)
    along = conv2d(pictures.double(), directions.view(-1, 3, side, side))
    return along.transpose(0, 1).flatten(1).sort(1).values


def patch_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The sliced Wasserstein-1 distance of as many patches [D, patches]: mean |a_(i) - b_(i)| of sorted projections."""
    return float((a - b).abs().mean())


def directions() -> torch.Tensor:
    """Directions [D, 3 p p] of length 1, always the same."""
    import torch

    drawn = torch.randn(DIRECTIONS, 3 * PATCH * PATCH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def _mean(pairs: Iterable[tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]]) -> Texture:
    found = [(spectrum_distance(a[0], b[0]), patch_distance(a[1], b[1])) for a, b in pairs]
    spectrum, patches = (math.fsum(column) / len(found) for column in zip(*found, strict=True))
    return Texture(spectrum, patches)

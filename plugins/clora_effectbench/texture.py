"""How far pictures are from what an effect may make, where chance decides and no picture is the right one.

Both distances compare a set of pictures with a set of draws for the same sources: a blurred mean of all draws, which is
the nearest picture of all by squared distance, has neither their spectrum nor their patches.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import torch

#: side of a patch in pixels, and along how many directions patches are compared
PATCH, DIRECTIONS = 5, 64
#: power below which a ring of the spectrum holds nothing: rounding to eight bits leaves about 1e-5
NOTHING = 1e-5


@frozen
class Texture:
    """One set's distances to the draws, and those of fresh draws among themselves: what no set is below by more."""

    spectrum: float
    patches: float
    spectrum_of_draws: float
    patches_of_draws: float


def texture(made: torch.Tensor, draws: torch.Tensor) -> Texture:
    """Compare pictures [N, 3, H, W] with draws [K, N, 3, H, W], K at least 2, each in turn, in float64."""
    spectra = [radial_spectrum(each) for each in draws]
    sides = _directions()
    sorted_draws = [projected(each, sides) for each in draws]
    own, own_sorted = radial_spectrum(made), projected(made, sides)
    pairs = [(i, j) for i in range(len(draws)) for j in range(i)]
    return Texture(
        _mean([spectrum_distance(own, each) for each in spectra]),
        _mean([patch_distance(own_sorted, each) for each in sorted_draws]),
        _mean([spectrum_distance(spectra[i], spectra[j]) for i, j in pairs]),
        _mean([patch_distance(sorted_draws[i], sorted_draws[j]) for i, j in pairs]),
    )


def radial_spectrum(pictures: torch.Tensor) -> torch.Tensor:
    """S(k) = mean of |F(u, v)|^2 / (H W) over pictures, channels and k - 1/2 <= |(u, v)| < k + 1/2, [K], k = 1 ... K.

    (u, v) counts waves over the shorter side, and K is half of its pixels.
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
    """Mean over the rings of |ln S_a(k) - ln S_b(k)|, in nepers: ln 2 where one has twice the power everywhere."""
    return float(((a + NOTHING).log() - (b + NOTHING).log()).abs().mean())


def projected(pictures: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """All patches of all pictures along each direction [D, 3 p p], sorted: [D, patches]."""
    from torch.nn.functional import conv2d

    side = math.isqrt(directions.shape[1] // 3)
    along = conv2d(pictures.double(), directions.view(-1, 3, side, side))
    return along.transpose(0, 1).flatten(1).sort(1).values


def patch_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The sliced Wasserstein-1 distance of two sets of as many patches: mean |a_(i) - b_(i)| of sorted projections."""
    return float((a - b).abs().mean())


def _directions() -> torch.Tensor:
    """Directions [D, 3 p p] of length 1, always the same."""
    import torch

    drawn = torch.randn(DIRECTIONS, 3 * PATCH * PATCH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)

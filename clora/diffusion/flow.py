"""The algebra of rectified flow: noise, velocity, x0 and the timestep shift.

One notation everywhere, diffusers' own: sigma in [0, 1] is the noise level, 1 is pure noise. The paper writes
t = 1 - sigma and the opposite sign of the velocity. Every `sigma` is a float or a tensor [B] that is spread over the
trailing axes of `x`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from attrs import field, frozen

from clora.contracts.bounds import between
from clora.errors import CloraError, quoted

if TYPE_CHECKING:
    import torch

#: levels of a schedule; base models are trained with a thousand
MOST_STEPS = 1000
#: how far above 1 a level may be that a model's own scheduler has computed in float32
ROUNDING = 1e-6


class ScheduleError(CloraError, ValueError):
    """Noise levels that no sampler can walk."""


def over(sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """sigma [B] reshaped to [B, 1, ..., 1] in x's type, so that it multiplies x [B, ...] row by row."""
    return sigma.to(x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def add_noise(x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x_sigma = (1 - sigma) x0 + sigma eps   (paper Eq. 1 with t = 1 - sigma)."""
    s = over(sigma, x0)
    return (1 - s) * x0 + s * noise


def velocity_target(x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """v = eps - x0, what the network predicts (the paper's y - eps with the sign turned)."""
    return noise - x0


def to_x0(x_sigma: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x0 = x_sigma - sigma v."""
    return x_sigma - over(sigma, x_sigma) * velocity


def to_noise(x_sigma: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """eps = x_sigma + (1 - sigma) v."""
    return x_sigma + (1 - over(sigma, x_sigma)) * velocity


def shift(u, s: float):
    """shift_s(u) = s u / (1 + (s - 1) u): moves noise levels towards 1 (s = 3 in the paper); float or tensor."""
    return s * u / (1 + (s - 1) * u)


def unshift(sigma, s: float):
    """The u for which shift_s(u) = sigma."""
    return sigma / (s - (s - 1) * sigma)


#: the shift of the paper's schedule, made for 4,096 tokens (1024 x 1024 pixels)
PAPER_SHIFT = 3.0
PAPER_TOKENS = 4096
#: shifts beyond which the levels of a schedule crowd at one end, until float32 cannot tell them apart
SHIFT = between(0.01, 100.0)


def position(tau: float) -> float:
    """The u in [0, 1] at which the paper's schedule has the level `tau` in 0..1000: 750 is 0.5, 500 is 0.25.

    A level is named by its place on the paper's schedule and moves with the shift: what 500 hides of 4,096 tokens, a
    lower level hides of 64.
    """
    return unshift(tau / 1000, PAPER_SHIFT)


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """u + w (c - u): classifier-free guidance in its standard form (w = 1 leaves c as it is)."""
    return unconditional + guidance_scale * (conditional - unconditional)


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= MOST_STEPS:
        raise ScheduleError(f"a schedule has 1 to {MOST_STEPS} steps, not {quoted(steps)}")


def _walkable(instance: object, attribute: object, sigmas: tuple[float, ...]) -> None:
    _check_steps(len(sigmas))
    falling = all(before > after for before, after in pairwise(sigmas))
    if not (falling and sigmas[-1] > 0 and sigmas[0] <= 1 + ROUNDING):
        known = ", ".join(f"{sigma:.6g}" for sigma in sigmas[:8])
        raise ScheduleError(f"a schedule's levels must fall from at most 1 and stay above 0; these are {known}")


@frozen
class Schedule:
    """The noise levels of a few-step sampler, falling; the last step jumps to x0.

    `shift` is what they were shifted by, 1 where they are a model's own. Raises ScheduleError unless there are 1 to
    MOST_STEPS levels above 0 and up to 1, each below the one before.
    """

    sigmas: tuple[float, ...] = field(validator=_walkable)  # the levels, in (0, 1]
    shift: float = 1.0  # 1 where the levels are a model's own

    @classmethod
    def shifted(cls, steps: int, s: float) -> Schedule:
        """shift_s of `steps` uniform levels from 1: 8 steps, s = 3 give 1, .9545, .9, .8333, .75, .6429, .5, .3."""
        _check_steps(steps)
        return cls(tuple(shift((steps - i) / steps, s) for i in range(steps)), s)

    def __len__(self) -> int:
        return len(self.sigmas)

    def after(self, i: int) -> float:
        """The level that step i goes to; 0 after the last."""
        return self.sigmas[i + 1] if i + 1 < len(self.sigmas) else 0.0

    def tensor(self) -> torch.Tensor:
        """The levels as float32 [steps]."""
        import torch

        return torch.tensor(self.sigmas, dtype=torch.float32)

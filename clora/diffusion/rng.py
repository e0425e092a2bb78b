"""Every random draw of a step, made from (seed, step, rank, name) alone.

No generator is carried from step to step: step n can be drawn without the steps before it, so a resumed run draws what
the uninterrupted one would have drawn, the next step's teacher is known in advance, and two components never disturb
each other's numbers.
"""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from attrs import evolve, frozen

if TYPE_CHECKING:
    import torch


class Normal(Protocol):
    """Where a sampler's noise comes from."""

    def normal(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Standard normal noise with the shape, type and device of `like`."""
        ...


@frozen
class StepRng:
    """The random numbers of one step on one rank, a separate stream for every name."""

    seed: int  # the run's
    step: int = 0  # counts every update, the critic's too
    rank: int = 0  # the process
    scope: str = ""  # the component's place in the recipe

    def at(self, step: int) -> StepRng:
        """The draws of another step (0-based) with the same seed, rank and scope."""
        return evolve(self, step=step)

    def named(self, name: str) -> StepRng:
        """A stream of its own for one component: draws under different names are independent."""
        return evolve(self, scope=f"{self.scope}/{name}")

    def number(self, name: str) -> int:
        """A 63-bit integer that depends on nothing but seed, step, rank, scope and name."""
        text = f"{self.seed}|{self.step}|{self.rank}|{self.scope}|{name}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

    def python(self, name: str) -> random.Random:
        """A Python generator, for draws that need no tensor (routing, choosing pictures)."""
        return random.Random(self.number(name))

    def torch(self, name: str) -> torch.Generator:
        """A torch generator on the CPU; tensors drawn from it are the same on every device."""
        import torch

        return torch.Generator().manual_seed(self.number(name))

    def normal(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Standard normal noise with the shape, type and device of `like`."""
        import torch

        noise = torch.randn(like.shape, generator=self.torch(name), dtype=torch.float32)
        return noise.to(like.device, like.dtype)

    def uniform(self, name: str, rows: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """U(low, high), float32, shape [rows]."""
        import torch

        return low + (high - low) * torch.rand(rows, generator=self.torch(name))

    def integers(self, name: str, rows: int, high: int) -> torch.Tensor:
        """Uniform integers 0 <= i < high, int64, shape [rows]."""
        import torch

        return torch.randint(high, (rows,), generator=self.torch(name))


@frozen
class RowDraws:
    """A sampler's noise in which every row has draws of its own, whatever batch it is in."""

    rows: tuple[StepRng, ...]

    def normal(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Standard normal noise with the shape, type and device of `like` [B, ...], row by row."""
        import torch

        return torch.cat([rng.normal(name, row[None]) for rng, row in zip(self.rows, like, strict=True)])

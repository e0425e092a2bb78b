"""What the checks of losses and simulations share: rows, a step of them, and a network that tells who asked it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clora.contracts.method import UsesSimulation
from clora.contracts.step import Forward, Inside, Simulated, StepContext
from clora.contracts.values import Phase, Row
from clora.testing import example_step

if TYPE_CHECKING:
    import torch

EFFECTS = ("clay", "ink", "wool")
#: of the features that it shows
WIDTH = 5
ROLES = ("student", "critic", "teacher", "teacher_unconditional")


class FakeNetwork:
    """An answer of every role with a parameter of its own, so that a gradient shows whom it reaches."""

    def __init__(self) -> None:
        import torch

        self.factors = {role: torch.full((), 0.5 + 0.1 * i, requires_grad=True) for i, role in enumerate(ROLES)}
        self.asked = 0

    def __call__(self, forward: Forward) -> torch.Tensor | Inside:
        self.asked += 1
        factor = self.factors[forward.role] if forward.grad else self.factors[forward.role].detach()
        velocity = factor * forward.x_sigma + 0.1 * forward.sigma.view(-1, 1, 1, 1)
        tokens = velocity.mean(1).flatten(1)[..., None].expand(-1, -1, WIDTH)
        return Inside(velocity, tuple(depth * tokens for depth in forward.depths)) if forward.depths else velocity

    def reached(self) -> list[str]:
        """The roles whose parameter has a gradient other than 0."""
        return [role for role, factor in self.factors.items() if factor.grad is not None and factor.grad.abs() > 0]


def step_of(rows: Sequence[Row], phase: Phase = "student") -> StepContext:
    """A step of four noise levels over latents [R, 3, 4, 4] of random numbers, the same for as many rows."""
    import torch

    targets = torch.randn(len(rows), 3, 4, 4, generator=torch.Generator().manual_seed(len(rows)))
    return example_step(rows, targets, phase=phase, steps=4)


def outcomes_for(part: object, step: StepContext, network: FakeNetwork) -> dict[str, Simulated]:
    """The outcome of the simulation that a loss or simulation reads, with the student's gradient; none for most."""
    import torch

    if not isinstance(part, UsesSimulation):
        return {}
    sigma = torch.full((len(step.rows),), 0.5)
    x0 = network.factors["student"] * step.targets if step.phase == "student" else 0.5 * step.targets
    return {part.simulation: Simulated(step.rows, step.targets, sigma, x0)}

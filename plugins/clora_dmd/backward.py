"""Backward simulation: the student where its own few-step sampler takes it from pure noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import in_

from clora.api import ForwardCoroutine, Simulated, StepContext, Trajectory, add_noise, to_x0

if TYPE_CHECKING:
    import torch


@frozen
class Backward:
    """Backward simulation (CollectionLoRA, BS-DMD; DMD2 Sec. 4.5).

    Each row stops at a step drawn uniformly from the schedule, and only rows that have not stopped are run. The public
    code runs every row through every step before the last (`stop: always_all`), at a greater cost.
    """

    #: drawn: a row runs up to its step; always_all: it runs every step, for the same numbers
    stop: Literal["drawn", "always_all"] = field(default="drawn", validator=in_(("drawn", "always_all")))

    def simulate(self, step: StepContext) -> ForwardCoroutine[Simulated]:
        """x0 = x_sigma - sigma v_student(x_sigma, sigma, c_student) at the drawn step   (CollectionLoRA, BS-DMD).

        Returns x_sigma and x0 [R, C, H, W], sigma [R]. Where the step holds a trajectory nothing before the drawn step
        is run again, and in the critic's phase, which needs no gradient, nothing at all.
        """
        import torch

        steps, count = len(step.schedule), len(step.rows)
        stop = step.rng.integers("stop", count, steps)
        here = torch.arange(count)
        sigma = step.schedule.tensor()[stop].to(step.targets.device)
        trajectory = step.trajectory
        if trajectory is None:
            trajectory = yield from _walk(step, stop if self.stop == "drawn" else torch.full_like(stop, steps - 1))
        elif step.phase == "critic":
            return Simulated(step.rows, trajectory.x_sigma[stop, here], sigma, trajectory.x0[stop, here])
        x_sigma = trajectory.x_sigma[stop, here]
        velocity = yield step.forward("student", x_sigma, sigma, grad=True)
        return Simulated(step.rows, x_sigma, sigma, to_x0(x_sigma, velocity, sigma))

    def rollout(self, step: StepContext) -> ForwardCoroutine[Trajectory]:
        """The student's whole few-step trajectory without gradient, [steps, R, C, H, W], for a cycle to share."""
        import torch

        return (yield from _walk(step, torch.full((len(step.rows),), len(step.schedule))))


def _walk(step: StepContext, until: torch.Tensor) -> ForwardCoroutine[Trajectory]:
    """x_{i+1} = (1 - sigma_{i+1}) x0_i + sigma_{i+1} eps_{i+1}, x_0 = eps_0   (paper: inference, stochastic re-noise).

    Row r predicts x0 in the steps i < until[r] [R]; what lies beyond stays zero and is never read. The noise of a step
    is drawn for all rows under the step's own name, so it does not depend on which rows run.
    """
    import torch

    levels = step.schedule.sigmas
    x_sigma = torch.zeros(len(levels), *step.targets.shape, dtype=step.targets.dtype, device=step.targets.device)
    x0 = torch.zeros_like(x_sigma)
    x_sigma[0] = step.rng.normal("noise/0", step.targets)
    for i, level in enumerate(levels):
        rows: Sequence[int] = (until > i).nonzero()[:, 0].tolist()
        if not rows:
            break
        before = x_sigma[i, rows]
        sigma = torch.full((len(rows),), level, device=before.device)
        velocity = yield step.forward("student", before, sigma, at=rows)
        x0[i, rows] = to_x0(before, velocity, sigma)
        if i + 1 < len(levels):
            noise = step.rng.normal(f"noise/{i + 1}", step.targets)[rows]
            x_sigma[i + 1, rows] = add_noise(x0[i, rows], noise, torch.full_like(sigma, levels[i + 1]))
    return Trajectory(x_sigma, x0)

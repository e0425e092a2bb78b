"""Backward simulation: the student where its own few-step sampler takes it from pure noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import in_

from clora.api import Asking, Scene, Schedule, Simulated, Trajectory, add_noise, to_x0

if TYPE_CHECKING:
    import torch


@frozen
class Backward:
    """Backward simulation (CollectionLoRA, BS-DMD; DMD2 Sec. 4.5).

    Each row stops at a step drawn uniformly from the schedule, and only rows that have not stopped are run.
    `stop: always_all` runs every row through every step before the last, as the public code does: the same numbers at
    a greater cost.
    """

    stop: Literal["drawn", "always_all"] = field(default="drawn", validator=in_(("drawn", "always_all")))

    def simulate(self, scene: Scene) -> Asking[Simulated]:
        """x0 = x_sigma - sigma v_student(x_sigma, sigma, c_student) at the drawn step   (CollectionLoRA, BS-DMD).

        Returns x_sigma and x0 [R, C, H, W], sigma [R]. Where the scene holds a trajectory nothing before the drawn step
        is run again, and in the critic's phase, which needs no gradient, nothing at all.
        """
        import torch

        steps, count = len(scene.schedule), len(scene.rows)
        stop = scene.draws.integers("stop", count, steps)
        here = torch.arange(count)
        sigma = scene.schedule.tensor()[stop].to(scene.targets.device)
        trajectory = scene.trajectory
        if trajectory is None:
            trajectory = yield from _walk(scene, stop if self.stop == "drawn" else torch.full_like(stop, steps - 1))
        elif scene.phase == "critic":
            return Simulated(scene.rows, trajectory.x_sigma[stop, here], sigma, trajectory.x0[stop, here])
        x_sigma = trajectory.x_sigma[stop, here]
        velocity = yield scene.forward("student", x_sigma, sigma, grad=True)
        return Simulated(scene.rows, x_sigma, sigma, to_x0(x_sigma, velocity, sigma))

    def rollout(self, scene: Scene) -> Asking[Trajectory]:
        """The student's whole few-step trajectory without gradient, [steps, R, C, H, W], for a cycle to share."""
        import torch

        return (yield from _walk(scene, torch.full((len(scene.rows),), len(scene.schedule))))

    def check_schedule(self, schedule: Schedule) -> Iterable[str]:
        """Nothing: every schedule can be walked."""
        return ()


def _walk(scene: Scene, until: torch.Tensor) -> Asking[Trajectory]:
    """x_{i+1} = (1 - sigma_{i+1}) x0_i + sigma_{i+1} eps_{i+1}, x_0 = eps_0   (paper: inference, stochastic re-noise).

    Row r predicts x0 in the steps i < until[r] [R]; what lies beyond stays zero and is never read. The noise of a step
    is drawn for all rows under the step's own name, so it does not depend on which rows run.
    """
    import torch

    levels = scene.schedule.sigmas
    x_sigma = torch.zeros(len(levels), *scene.targets.shape, dtype=scene.targets.dtype, device=scene.targets.device)
    x0 = torch.zeros_like(x_sigma)
    x_sigma[0] = scene.draws.normal("noise/0", scene.targets)
    for i, level in enumerate(levels):
        rows: Sequence[int] = (until > i).nonzero()[:, 0].tolist()
        if not rows:
            break
        before = x_sigma[i, rows]
        sigma = torch.full((len(rows),), level, device=before.device)
        velocity = yield scene.forward("student", before, sigma, at=rows)
        x0[i, rows] = to_x0(before, velocity, sigma)
        if i + 1 < len(levels):
            noise = scene.draws.normal(f"noise/{i + 1}", scene.targets)[rows]
            x_sigma[i + 1, rows] = add_noise(x0[i, rows], noise, torch.full_like(sigma, levels[i + 1]))
    return Trajectory(x_sigma, x0)

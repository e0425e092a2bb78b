"""Regression of the student's velocity on its teacher's, at the states of the student's own rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import in_

from clora.api import (
    Await,
    Forward,
    ForwardCoroutine,
    LossTerm,
    Schedule,
    StepContext,
    StudentLoss,
    between,
    guide,
    over,
    to_x0,
)

if TYPE_CHECKING:
    import torch


@frozen
class OnPolicyDistillation(StudentLoss):
    """Velocity matching on the outcome of `simulation` (after DiffusionOPD, 2605.15055, and Flow-OPD, 2605.08063).

    The teacher is the row's own: an effect's LoRA with its prompt, the base on general rows.
    """

    simulation: str  # the one whose states are matched, by its key under `simulations:`
    #: w of the teacher's u + w (c - u); 1 asks for no unconditional prediction
    guidance_scale: float = field(default=1.0, validator=between(0.0, 100.0))
    #: how u and c are joined: as in the equation, or in the backbone's own way, such as one that keeps the norm of c
    guidance: Literal["plain", "own"] = field(default="plain", validator=in_(("plain", "own")))
    #: the velocities themselves, or the states to which an Euler step of the schedule would take them
    match: Literal["velocity", "transition"] = field(default="velocity", validator=in_(("velocity", "transition")))

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """L = mean(d^2) or, for `transition`, 0.5 mean((h d)^2), in float32   (DiffusionOPD Eq. 12, of one step).

        d = v_student(x_sigma, sigma, c_student) - stopgrad(v_teacher(x_sigma, sigma, c_teacher)) [R, C, H, W] and h is
        the length of the schedule's step from sigma. The student's velocity is read off the simulation's own
        x0 = x_sigma - sigma v, so its forward is not run again.
        """
        simulated = (yield Await(self.simulation)).on(step.rows)
        x_sigma, sigma = simulated.x_sigma.detach(), simulated.sigma
        teacher = yield from self._teacher(step, x_sigma, sigma)
        target = to_x0(x_sigma.float(), teacher, sigma)
        difference = (target - simulated.x0.float()) / over(sigma, target)
        logs = {"velocity_distance": _relative(difference.detach(), teacher)}
        if self.match == "velocity":
            return LossTerm(difference.square().mean(), logs)
        step_length = over(sigma - _level_after(sigma, step.schedule), target)
        return LossTerm(0.5 * (step_length * difference).square().mean(), logs)

    def _teacher(self, step: StepContext, x_sigma: torch.Tensor, sigma: torch.Tensor) -> ForwardCoroutine[torch.Tensor]:
        """v = u + w (c - u), float32 [R, C, H, W]: c with the teacher's words, u with none."""
        asked: list[Forward] = [step.forward("teacher", x_sigma, sigma)]
        if self.guidance_scale != 1:
            asked.append(step.forward("teacher_unconditional", x_sigma, sigma))
        velocities: tuple[torch.Tensor, ...] = yield tuple(asked)
        conditional, *unconditional = [velocity.detach().float() for velocity in velocities]
        join = step.guide if self.guidance == "own" else guide
        return join(conditional, unconditional[0], self.guidance_scale) if unconditional else conditional


def _level_after(sigma: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """The highest level of the schedule below each sigma [R], 0 below the last."""
    levels = schedule.tensor().to(sigma.device)
    return levels.where(levels < sigma[:, None], levels.new_zeros(())).amax(1)


def _relative(difference: torch.Tensor, velocity: torch.Tensor) -> float:
    """||difference|| / ||velocity||, the mean over the rows."""
    least = 1e-12  # a teacher whose velocity is zero
    return float((difference.flatten(1).norm(dim=1) / velocity.flatten(1).norm(dim=1).clamp_min(least)).mean())

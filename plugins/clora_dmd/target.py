"""Target simulation: the student on the teacher's own outputs, noised to a late step."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen
from attrs.validators import optional

from clora.api import (
    ForwardCoroutine,
    Schedule,
    Simulated,
    StepContext,
    add_noise,
    between,
    position,
    shift,
    to_x0,
    unshift,
)

#: two positions closer than this are one: schedules are computed, bounds are typed
SAME_POSITION = 1e-9
#: levels that a message lists
MOST_TOLD = 12


@frozen
class Target:
    """Target simulation (CollectionLoRA, TS-DMD).

    The noise level is one of the schedule's below `tau_max`, a level of the paper's schedule that moves with the shift:
    750 is half-way through the steps, whatever the shift. `tau_max` is not read where `last_steps` is given.
    """

    #: levels strictly below it are drawn, on the paper's scale; null: every level
    tau_max: float | None = field(default=750.0, validator=optional(between(0.1, 1000.0)))
    #: draws from so many last levels instead, as the public code does with 5
    last_steps: int | None = field(default=None, validator=optional(between(1, 1000)))

    def levels(self, schedule: Schedule) -> tuple[float, ...]:
        """The sigmas from which t_gen is drawn, falling; may be empty."""
        if self.last_steps is not None:
            return schedule.sigmas[-self.last_steps :]
        if self.tau_max is None:
            return schedule.sigmas
        bound = position(self.tau_max) - SAME_POSITION
        return tuple(sigma for sigma in schedule.sigmas if unshift(sigma, schedule.shift) < bound)

    def simulate(self, step: StepContext) -> ForwardCoroutine[Simulated]:
        """y_hat = x0_student(y_sigma, sigma, c_student), y_sigma = (1 - sigma) y + sigma eps   (paper: TS-DMD).

        y is the teacher's output [R, C, H, W], sigma uniform among `levels`; one forward with gradient.
        """
        import torch

        levels = torch.tensor(self.levels(step.schedule))
        drawn = step.rng.integers("level", len(step.rows), len(levels))
        sigma = levels[drawn].to(step.targets.device)
        x_sigma = add_noise(step.targets, step.rng.normal("noise", step.targets), sigma)
        velocity = yield step.forward("student", x_sigma, sigma, grad=True)
        return Simulated(step.rows, x_sigma, sigma, to_x0(x_sigma, velocity, sigma))

    def check_schedule(self, schedule: Schedule) -> Iterable[str]:
        """A sentence where the bounds leave no level of the schedule, or ask for more than it has."""
        known = ", ".join(f"{1000 * sigma:.4g}" for sigma in schedule.sigmas[:MOST_TOLD])
        known += ", ..." if len(schedule) > MOST_TOLD else ""
        if self.last_steps is not None and self.last_steps > len(schedule):
            yield f"last_steps {self.last_steps} asks for more than the schedule's {len(schedule)} levels: {known}"
        elif not self.levels(schedule):
            here = 1000 * shift(position(self.tau_max or 1000.0), schedule.shift)
            moved = "" if f"{here:.4g}" == f"{self.tau_max:.4g}" else f" ({here:.4g} at shift {schedule.shift:g})"
            yield f"tau_max {self.tau_max:g}{moved} leaves no level of the schedule below it: {known}"

"""Velocity matching: the student answers as the teacher does, where the teacher itself would go."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import and_, deep_iterable, in_, min_len

from clora.api import ForwardCoroutine, LossTerm, StepContext, Stream, add_noise, between, course, shift, to_x0


@frozen
class VelocityMatching:
    """Regression of the student's velocity on its teacher's (not the paper's: it keeps the base through a warm start).

    On general rows the teacher is the base, so there it costs no outputs that a sampler makes in many steps, and its
    target has no noise in it.
    """

    #: whose rows train it: effect, general or both
    streams: tuple[Stream, ...] = field(
        default=("general",), validator=and_(min_len(1), deep_iterable(in_(("general", "effect"))))
    )
    weight: float = field(default=1.0, validator=between(1e-6, 1e6, zero=True))  # its factor in the objective
    #: share of the run over which the weight rises from 0
    fade_in: float = field(default=0.0, validator=between(0.0, 1.0))
    #: share of the run, at its end, over which the weight falls to 0
    fade_out: float = field(default=0.0, validator=between(0.0, 1.0))

    def weight_at(self, progress: float) -> float:
        """`weight`, rising from zero over the first `fade_in` of the run, falling to zero over its last `fade_out`."""
        return self.weight * course(progress, self.fade_in, self.fade_out)

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """L = mean((v_student(x_sigma, sigma, c_student) - v_teacher(x_sigma, sigma, c_teacher))^2), in float32.

        x = x0_teacher(z_s, s, c_teacher) is the teacher's one-step edit of the source z [R, C, H, W], noised to a level
        s of its own: from the source itself, where s is low, to a whole edit. s and sigma are shift_s(U(0, 1)). Raises
        ValueError in the critic's phase, where it would train nothing.
        """
        if step.phase != "student":
            raise ValueError("the loss velocity_matching trains the student; it does not belong under critic.losses")
        source = step.conditions.teacher.source
        first, sigma = (self._levels(step, name).to(source.device) for name in ("first", "sigma"))
        z = add_noise(source, step.rng.normal("first noise", source), first)
        velocity = yield step.forward("teacher", z, first)
        x = to_x0(z, velocity.detach(), first)
        x_sigma = add_noise(x, step.rng.normal("noise", x), sigma)
        student, teacher = yield (
            step.forward("student", x_sigma, sigma, grad=True),
            step.forward("teacher", x_sigma, sigma),
        )
        return LossTerm((student.float() - teacher.detach().float()).square().mean())

    def _levels(self, step: StepContext, name: str):
        return shift(step.rng.uniform(name, len(step.rows)), step.shift)

"""Velocity matching: the student answers as the teacher does, where the teacher itself would go."""

from __future__ import annotations

from attrs import frozen

from clora.api import ForwardCoroutine, LossTerm, StepContext, Stream, StudentLoss, add_noise, shift, streams_key, to_x0


@frozen
class VelocityMatching(StudentLoss):
    """Regression of the student's velocity on its teacher's (not the paper's: it keeps the base through a warm start).

    On general rows the teacher is the base, so there it costs no outputs that a sampler makes in many steps, and its
    target has no noise in it.
    """

    streams: tuple[Stream, ...] = streams_key("general")  # whose rows train it

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """L = mean((v_student(x_sigma, sigma, c_student) - v_teacher(x_sigma, sigma, c_teacher))^2), in float32.

        x = x0_teacher(z_s, s, c_teacher) is the teacher's one-step edit of the source z [R, C, H, W], noised to a level
        s of its own: from the source itself, where s is low, to a whole edit. s and sigma are shift_s(U(0, 1)).
        """
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

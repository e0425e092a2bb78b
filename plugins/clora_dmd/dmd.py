"""The DMD loss: moves the student's x0 from where the critic sees its distribution to where the teacher sees its."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import in_

from clora.api import (
    Await,
    Forward,
    ForwardCoroutine,
    LossTerm,
    StepContext,
    StudentLoss,
    add_noise,
    between,
    guide,
    position,
    shift,
    to_x0,
    unshift,
)
from clora_dmd.alarms import saturation
from clora_dmd.monitors import Judged, logs

if TYPE_CHECKING:
    import torch


@frozen
class Dmd(StudentLoss):
    """Distribution matching on the outcome of `simulation` (CollectionLoRA, BS-DMD and TS-DMD; DMD Eq. 7).

    Near the target |x - r| goes to zero, which makes noise in f - r a gradient of constant size: `floor` and
    `floor_of_spread` bound the denominator from below.
    """

    simulation: str  # the one whose outcome is corrected, by its key under `simulations:`
    #: w of the teacher's u + w (c - u); 1 asks for no unconditional prediction
    guidance_scale: float = field(default=5.0, validator=between(0.0, 100.0))
    #: how u and c are joined: as in the equation, or in the backbone's own way, such as one that keeps the norm of c
    guidance: Literal["plain", "own"] = field(default="plain", validator=in_(("plain", "own")))
    #: the least level at which critic and teacher are compared, on the paper's scale
    tau_min: float = field(default=0.0, validator=between(0.0, 1000.0, below=True))
    #: what tau_min bounds: the shifted level (paper) or the one before the shift (public code)
    bound: Literal["post_shift", "pre_shift"] = field(default="post_shift", validator=in_(("post_shift", "pre_shift")))
    # 1e-3 is the mean rounding error of a unit-variance latent in bfloat16: |x - r| below it is no signal, and the
    # quotient would be noise of any size. Latents at training's noise levels stand two orders above it. At most 1, a
    # whole standard deviation: beyond it nothing would be normalised.
    floor: float = field(default=1e-3, validator=between(1e-8, 1.0))  # the least denominator of the gradient
    #: the least denominator in units of the standard deviation of the teacher's x0
    floor_of_spread: float = field(default=0.0, validator=between(0.0, 1.0))
    normalise: bool = True  # false: the gradient is f - r itself

    def needs_critic(self) -> bool:
        """True: the fake score is the critic's."""
        return True

    def alarms(self, course: Mapping[str, Sequence[tuple[float, float]]]) -> Iterable[str]:
        """Sentences where a finished run's student is over-saturated or its critic behind at high noise."""
        return saturation(course)

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """L = 0.5 mean((x - stopgrad(x - g))^2), so dL/dx = g / numel   (DMD Eq. 7).

        x is the simulation's x0 [R, C, H, W].
        """
        simulated = (yield Await(self.simulation)).on(step.rows)
        x = simulated.x0.detach()
        sigma = self.sigmas(step).to(x.device)
        x_sigma = add_noise(x, step.rng.normal("noise", x), sigma)
        fake, real = yield from self._predictions(step, x_sigma, sigma)
        gradient, broken = self.gradient(x.float(), fake, real)
        # x - stopgrad(x - g) written so that it is g to the last digit: x - stopgrad(x) is exactly zero
        student = simulated.x0.float()
        loss = 0.5 * (student - student.detach() + gradient).square().mean()
        return LossTerm(loss, logs(Judged(x.float(), gradient, fake, real, unshift(sigma, step.shift)), broken))

    def sigmas(self, step: StepContext) -> torch.Tensor:
        """sigma = shift_s(u), u ~ U(lo, 1), [R]: lo = unshift_3(tau) after, tau before the shift   (paper: tau_min)."""
        low = position(self.tau_min) if self.bound == "post_shift" else self.tau_min / 1000
        return shift(step.rng.uniform("sigma", len(step.rows), low, 1.0), step.shift)

    def _predictions(
        self, step: StepContext, x_sigma: torch.Tensor, sigma: torch.Tensor
    ) -> ForwardCoroutine[tuple[torch.Tensor, torch.Tensor]]:
        """f = x0_critic(x_sigma, c_student) and r = u + w (c - u), float32 [R, C, H, W]   (paper: DMD gradient)."""
        asked: list[Forward] = [step.forward("critic", x_sigma, sigma), step.forward("teacher", x_sigma, sigma)]
        if self.guidance_scale != 1:
            asked.append(step.forward("teacher_unconditional", x_sigma, sigma))
        velocities: tuple[torch.Tensor, ...] = yield tuple(asked)
        fake, conditional, *unconditional = [velocity.detach().float() for velocity in velocities]
        predicted = partial(to_x0, x_sigma.float(), sigma=sigma)
        if not unconditional:
            return predicted(fake), predicted(conditional)
        if self.guidance == "own":
            return predicted(fake), predicted(step.guide(conditional, unconditional[0], self.guidance_scale))
        return predicted(fake), guide(predicted(conditional), predicted(unconditional[0]), self.guidance_scale)

    def gradient(self, x: torch.Tensor, fake: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """g = (f - r) / max(mean_{C,H,W} |x - r|, floor, floor_of_spread std(r)); numbers not finite become 0.

        Also gives how many those were. All float32 [R, C, H, W]   (DMD Eq. 8, per sample).
        """
        import torch

        gradient = fake - real
        if self.normalise:
            axes = tuple(range(1, x.ndim))
            scale = (x - real).abs().mean(dim=axes, keepdim=True).clamp_min(self.floor)
            if self.floor_of_spread:
                scale = torch.maximum(scale, self.floor_of_spread * real.std(dim=axes, keepdim=True, correction=0))
            gradient = gradient / scale
        finite = gradient.isfinite()
        return torch.where(finite, gradient, torch.zeros_like(gradient)), (~finite).sum()

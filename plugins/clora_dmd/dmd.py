"""The DMD loss: moves the student's x0 from where the critic sees its distribution to where the teacher sees its."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import and_, deep_iterable, in_, min_len

from clora.api import Asking, Await, Forward, LossTerm, Scene, Stream, add_noise, between, guide, shift, to_x0, unshift

if TYPE_CHECKING:
    import torch


@frozen
class Dmd:
    """Distribution matching on the outcome of `simulation` (CollectionLoRA, BS-DMD and TS-DMD; DMD Eq. 7).

    `tau_min` (0..1000) bounds the noise level at which critic and teacher are compared: the shifted level for
    `bound: post_shift` as the paper says, the one before the shift for `pre_shift` as the public code does. `floor` is
    the least denominator of the gradient (1e-8 to 1). `guidance_scale` is at most 100; 1 asks no unconditional teacher.
    `weight` is 0 or 1e-6 to 1e6, whose product with the loss float32 holds.
    """

    simulation: str
    streams: tuple[Stream, ...] = field(
        default=("general", "effect"), validator=and_(min_len(1), deep_iterable(in_(("general", "effect"))))
    )
    weight: float = field(default=1.0, validator=between(1e-6, 1e6, zero=True))
    guidance_scale: float = field(default=5.0, validator=between(0.0, 100.0))
    tau_min: float = field(default=0.0, validator=between(0.0, 1000.0, below=True))
    bound: Literal["post_shift", "pre_shift"] = field(default="post_shift", validator=in_(("post_shift", "pre_shift")))
    # 1e-3 is the mean rounding error of a unit-variance latent in bfloat16: |x - r| below it is no signal, and the
    # quotient would be noise of any size. Latents at training's noise levels stand two orders above it. At most 1, a
    # whole standard deviation: beyond it nothing would be normalised.
    floor: float = field(default=1e-3, validator=between(1e-8, 1.0))
    normalise: bool = True

    def needs_critic(self) -> bool:
        """True: the fake score is the critic's."""
        return True

    def __call__(self, scene: Scene) -> Asking[LossTerm]:
        """L = 0.5 mean((x - stopgrad(x - g))^2), so dL/dx = g / numel   (DMD Eq. 7).

        x is the simulation's x0 [R, C, H, W]. Raises ValueError in the critic's phase, where it would train nothing.
        """
        if scene.phase != "student":
            raise ValueError("the loss dmd trains the student; it does not belong under critic.losses")
        simulated = (yield Await(self.simulation)).on(scene.rows)
        x = simulated.x0.detach()
        sigma = self.sigmas(scene).to(x.device)
        x_sigma = add_noise(x, scene.draws.normal("noise", x), sigma)
        fake, real = yield from self._predictions(scene, x_sigma, sigma)
        gradient, broken = self.gradient(x.float(), fake, real)
        # x - stopgrad(x - g) written so that it is g to the last digit: x - stopgrad(x) is exactly zero
        student = simulated.x0.float()
        loss = 0.5 * (student - student.detach() + gradient).square().mean()
        return LossTerm(loss, _logs(gradient, broken, fake, real))

    def sigmas(self, scene: Scene) -> torch.Tensor:
        """sigma = shift_s(u), u ~ U(lo, 1), [R]: lo = unshift_s(tau) after, tau before the shift   (paper: tau_min)."""
        tau = self.tau_min / 1000
        low = unshift(tau, scene.shift) if self.bound == "post_shift" else tau
        return shift(scene.draws.uniform("sigma", len(scene.rows), low, 1.0), scene.shift)

    def _predictions(
        self, scene: Scene, x_sigma: torch.Tensor, sigma: torch.Tensor
    ) -> Asking[tuple[torch.Tensor, torch.Tensor]]:
        """f = x0_critic(x_sigma, c_student) and r = u + w (c - u), float32 [R, C, H, W]   (paper: DMD gradient)."""
        asked: list[Forward] = [scene.forward("critic", x_sigma, sigma), scene.forward("teacher", x_sigma, sigma)]
        if self.guidance_scale != 1:
            asked.append(scene.forward("teacher_unconditional", x_sigma, sigma))
        velocities: tuple[torch.Tensor, ...] = yield tuple(asked)
        fake, real, *unconditional = [to_x0(x_sigma.float(), v.detach().float(), sigma) for v in velocities]
        if unconditional:
            real = guide(real, unconditional[0], self.guidance_scale)
        return fake, real

    def gradient(self, x: torch.Tensor, fake: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """g = (f - r) / max(mean_{C,H,W} |x - r|, floor) and how many of its numbers were not finite (they become 0).

        All float32 [R, C, H, W]   (DMD Eq. 8, per sample).
        """
        import torch

        gradient = fake - real
        if self.normalise:
            scale = (x - real).abs().mean(dim=tuple(range(1, x.ndim)), keepdim=True)
            gradient = gradient / scale.clamp_min(self.floor)
        finite = gradient.isfinite()
        return torch.where(finite, gradient, torch.zeros_like(gradient)), (~finite).sum()


def _logs(gradient: torch.Tensor, broken: torch.Tensor, fake: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """Numbers that show the gradient vanish where critic and teacher agree (paper: Sec. 8.1), means over rows.

    `gradient_norm` is ||g|| / sqrt(CHW), `real_fake_gap` mean |f - r|, `real_fake_distance` ||f - r|| / ||r||,
    `real_fake_cosine` the cosine of f and r, `not_finite` a count.
    """
    import torch
    from torch.nn.functional import cosine_similarity

    f, r, g = fake.flatten(1), real.flatten(1), gradient.flatten(1)
    distance = (f - r).norm(dim=1) / r.norm(dim=1).clamp_min(torch.finfo(r.dtype).tiny)
    numbers = {
        "gradient_norm": g.square().mean(1).sqrt().mean(),
        "real_fake_gap": (f - r).abs().mean(),
        "real_fake_distance": distance.mean(),
        "real_fake_cosine": cosine_similarity(f, r, dim=1).mean(),
        "not_finite": broken,
    }
    # one copy from the device instead of five
    values = torch.stack([number.float() for number in numbers.values()]).tolist()
    return dict(zip(numbers, values, strict=True))

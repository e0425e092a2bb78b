"""The GAN loss of DMD2: a discriminator tells the student's x0 from the teacher's own outputs, both noised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen

from clora.api import (
    Await,
    ForwardCoroutine,
    LossTerm,
    StepContext,
    Stream,
    StudentLoss,
    add_noise,
    between,
    shift,
    streams_key,
)

if TYPE_CHECKING:
    import torch


@frozen
class Gan(StudentLoss):
    """Adversarial loss on the outcome of `simulation` (DMD2, arXiv 2405.14867, section 4.3; not CollectionLoRA's).

    The discriminator sees latents under noise, not the critic's features as DMD2's does: it costs no forward pass of
    the base. Its training data are the teachers' own outputs, which the general stream has none of. It is `width`
    channels wide (4 to 1024) and learns at `modules_lr` (1e-10 to 1).
    """

    simulation: str  # whose x0 the discriminator judges: a name under simulations
    streams: tuple[Stream, ...] = streams_key(
        "effect", among=("effect",)
    )  # the general stream has no teacher's outputs
    #: its factor in the objective
    weight: float = field(default=1e-2, kw_only=True, validator=between(1e-6, 1e6, zero=True))
    width: int = field(default=32, validator=between(4, 1024))  # channels of the discriminator's layers
    modules_lr: float = field(default=1e-3, validator=between(1e-10, 1.0))  # the discriminator's learning rate

    def modules(self, latent: Sequence[int]) -> Mapping[str, torch.nn.Module]:
        """A new discriminator for latents of the shape (C, H, W)."""
        from clora_dmd.discriminator import Discriminator

        return {"discriminator": Discriminator(latent[0], self.width)}

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """L_G = mean softplus(-D(x_sigma)), and for D itself mean softplus(D(x_sigma)) + mean softplus(-D(y_sigma)).

        x is the simulation's x0, y the teacher's output [R, C, H, W], under the same noise at the same level.
        """
        from torch.nn.functional import softplus

        x = (yield Await(self.simulation)).on(step.rows).x0.float()
        y = step.targets.float()
        sigma = shift(step.rng.uniform("sigma", len(step.rows)), step.shift).to(x.device)
        noise = step.rng.normal("noise", y)
        judge = step.modules["discriminator"]
        student = judge(add_noise(x, noise, sigma), sigma)
        fake, real = judge(add_noise(x.detach(), noise, sigma), sigma), judge(add_noise(y, noise, sigma), sigma)
        own = softplus(fake).mean() + softplus(-real).mean()
        right = 0.5 * ((fake < 0).float().mean() + (real > 0).float().mean())
        return LossTerm(softplus(-student).mean(), {"discriminator": float(own.detach()), "right": float(right)}, own)

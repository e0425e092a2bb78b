"""The GAN loss of DMD2: a discriminator tells the student's x0 from the teacher's own outputs, both noised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import in_

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

    The discriminator sees latents under noise, at no forward pass, or, as DMD2's does, what a block of critic or
    teacher makes of them: two forwards a row, one of them with its way back. Unlike DMD2's it does not train the
    critic's blocks. Its training data are the teachers' own outputs, which the general stream has none of.
    """

    simulation: str  # whose x0 the discriminator judges: a name under simulations
    streams: tuple[Stream, ...] = streams_key("effect", among=("effect",))  # the general stream has no targets
    #: its factor in the objective
    weight: float = field(default=1e-2, kw_only=True, validator=between(1e-6, 1e6, zero=True))
    #: what the discriminator sees: latents under noise, or the features that critic or teacher have of them
    sees: Literal["latents", "critic", "teacher"] = field(
        default="latents", validator=in_(("latents", "critic", "teacher"))
    )
    #: how deep in the transformer the features lie; 1 is the last block. Not read where it sees latents
    depth: float = field(default=0.5, validator=between(0.001, 1.0))
    width: int = field(default=32, validator=between(4, 1024))  # channels of the discriminator's layers
    modules_lr: float = field(default=1e-3, validator=between(1e-10, 1.0))  # the discriminator's learning rate

    def needs_critic(self) -> bool:
        """True where the discriminator sees the critic's features."""
        return self.sees == "critic"

    def modules(self, latent: Sequence[int], width: int | None) -> Mapping[str, torch.nn.Module]:
        """A new discriminator for latents of the shape (C, H, W), or for features of a width.

        Raises ValueError for features of a backbone that shows none.
        """
        from clora_dmd.discriminator import Discriminator, TokenDiscriminator

        if self.sees == "latents":
            return {"discriminator": Discriminator(latent[0], self.width)}
        if width is None:
            raise ValueError(f"sees: {self.sees} needs a backbone that shows its features; this one has latents alone")
        return {"discriminator": TokenDiscriminator(width, self.width)}

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """L_G = mean softplus(-D(x_sigma)), and for D itself mean softplus(D(x_sigma)) + mean softplus(-D(y_sigma)).

        x is the simulation's x0, y the teacher's output [R, C, H, W], under the same noise at the same level; D judges
        them or a block's features of them.
        """
        from torch.nn.functional import softplus

        x = (yield Await(self.simulation)).on(step.rows).x0.float()
        y = step.targets.float()
        sigma = shift(step.rng.uniform("sigma", len(step.rows)), step.shift).to(x.device)
        noise = step.rng.normal("noise", y)
        judge = step.modules["discriminator"]
        seen_x, seen_y = yield from self._seen(step, add_noise(x, noise, sigma), add_noise(y, noise, sigma), sigma)
        student = judge(seen_x, sigma)
        fake, real = judge(seen_x.detach(), sigma), judge(seen_y, sigma)
        own = softplus(fake).mean() + softplus(-real).mean()
        right = 0.5 * ((fake < 0).float().mean() + (real > 0).float().mean())
        return LossTerm(softplus(-student).mean(), {"discriminator": float(own.detach()), "right": float(right)}, own)

    def _seen(
        self, step: StepContext, x_sigma: torch.Tensor, y_sigma: torch.Tensor, sigma: torch.Tensor
    ) -> ForwardCoroutine[tuple[torch.Tensor, torch.Tensor]]:
        """What is judged of x_sigma, with its graph, and of y_sigma: latents [R, C, H, W] or features [R, L, D]."""
        if self.sees == "latents":
            return x_sigma, y_sigma
        depths = (self.depth,)
        student, teacher = yield (
            step.forward(self.sees, x_sigma, sigma, through=True, depths=depths),
            step.forward(self.sees, y_sigma, sigma, depths=depths),
        )
        return student.features[0], teacher.features[0].detach()

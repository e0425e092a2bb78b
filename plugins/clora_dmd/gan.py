"""The GAN loss of DMD2: a discriminator tells the student's x0 from the teacher's own outputs, both noised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import and_, deep_iterable, in_, min_len

from clora.api import Await, ForwardCoroutine, LossTerm, StepContext, Stream, add_noise, between, course, shift

if TYPE_CHECKING:
    import torch


@frozen
class Gan:
    """Adversarial loss on the outcome of `simulation` (DMD2, arXiv 2405.14867, section 4.3; not CollectionLoRA's).

    The discriminator sees latents under noise, not the critic's features as DMD2's does: it costs no forward pass of
    the base. Its training data are the teachers' own outputs, which the general stream has none of. It is `width`
    channels wide (4 to 1024) and learns at `modules_lr` (1e-10 to 1). `weight` is 0 or 1e-6 to 1e6; it rises over the
    first `fade_in` of the run and falls over its last `fade_out`.
    """

    simulation: str  # whose x0 the discriminator judges: a name under simulations
    #: the rows that it reads; the general stream has no teacher's output to compare with
    streams: tuple[Stream, ...] = field(
        default=("effect",), validator=and_(min_len(1), deep_iterable(in_(("effect",))))
    )
    #: of the student's term in the objective
    weight: float = field(default=1e-2, validator=between(1e-6, 1e6, zero=True))
    #: share of the run over which the weight rises from 0
    fade_in: float = field(default=0.0, validator=between(0.0, 1.0))
    #: share of the run, at its end, over which the weight falls to 0
    fade_out: float = field(default=0.0, validator=between(0.0, 1.0))
    width: int = field(default=32, validator=between(4, 1024))  # channels of the discriminator's layers
    modules_lr: float = field(default=1e-3, validator=between(1e-10, 1.0))  # the discriminator's learning rate

    def weight_at(self, progress: float) -> float:
        """`weight`, rising from zero over the first `fade_in` of the run, falling to zero over its last `fade_out`."""
        return self.weight * course(progress, self.fade_in, self.fade_out)

    def modules(self, latent: Sequence[int]) -> Mapping[str, torch.nn.Module]:
        """A new discriminator for latents of the shape (C, H, W)."""
        from clora_dmd.discriminator import Discriminator

        return {"discriminator": Discriminator(latent[0], self.width)}

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """L_G = mean softplus(-D(x_sigma)), and for D itself mean softplus(D(x_sigma)) + mean softplus(-D(y_sigma)).

        x is the simulation's x0, y the teacher's output [R, C, H, W], under the same noise at the same level. Raises
        ValueError in the critic's phase, where it would train nothing.
        """
        from torch.nn.functional import softplus

        if step.phase != "student":
            raise ValueError("the loss gan trains the student; it does not belong under critic.losses")
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

"""The critic's loss: plain flow matching on what the student makes, so that the critic knows its distribution."""

from __future__ import annotations

from attrs import frozen

from clora.api import (
    Await,
    CriticLoss,
    ForwardCoroutine,
    LossTerm,
    StepContext,
    add_noise,
    shift,
    unshift,
    velocity_target,
)
from clora_dmd.monitors import by_level


@frozen
class CriticFlowMatching(CriticLoss):
    """Flow matching of the critic on the student's x0 in `simulation` (CollectionLoRA, critic; DMD2 Sec. 4.2)."""

    simulation: str  # the one whose pictures the critic learns, by its key under `simulations:`

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """L = mean((v_critic(x_sigma, sigma, c_student) - (eps - x))^2), sigma = shift_s(U(0, 1)), in float32.

        x is the simulation's x0 [R, C, H, W] without its graph. Logged: the loss by thirds of the noise levels
        (`error.high`).
        """
        x = (yield Await(self.simulation)).on(step.rows).x0.detach()
        sigma = shift(step.rng.uniform("sigma", len(step.rows)), step.shift).to(x.device)
        noise = step.rng.normal("noise", x)
        velocity = yield step.forward("critic", add_noise(x, noise, sigma), sigma, grad=True)
        error = velocity.float() - velocity_target(x.float(), noise.float())
        by_row = error.detach().square().flatten(1).mean(1)
        return LossTerm(error.square().mean(), by_level("error", by_row, unshift(sigma, step.shift)))

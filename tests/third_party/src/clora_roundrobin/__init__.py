"""Effects in turn instead of at random, and trajectory anchoring with a Huber loss."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from attrs.validators import gt

from clora.api import (
    Component,
    ForwardCoroutine,
    LossTerm,
    Route,
    Row,
    StepContext,
    StepRng,
    Stream,
    add_noise,
    hookimpl,
    shift,
    velocity_target,
)


@frozen
class RoundRobin:
    """Every second row is general; effect rows take the bank's effects in turn, over rows and steps."""

    def route(self, rng: StepRng, rows: int, effects: Sequence[str]) -> Route:
        """The route of the step that `rng` stands for."""
        turn = rng.step * rows
        return Route.ordered(
            [Row("general") if i % 2 else Row("effect", effects[(turn + i // 2) % len(effects)]) for i in range(rows)]
        )


@frozen
class HuberAnchor:
    """Trajectory anchoring that large errors pull on less: Huber's loss between velocities."""

    streams: tuple[Stream, ...] = ("effect",)
    weight: float = 1.0
    delta: float = field(default=1.0, validator=gt(0.0))

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """huber(v_student(y_sigma) - (eps - y)), sigma = shift(U(0, 1))."""
        from torch.nn.functional import huber_loss

        sigma = shift(step.rng.uniform("sigma", len(step.rows)), step.shift)
        noise = step.rng.normal("noise", step.targets)
        x_sigma = add_noise(step.targets, noise, sigma)
        velocity = yield step.forward("student", x_sigma, sigma, grad=True)
        target = velocity_target(step.targets, noise)
        return LossTerm(huber_loss(velocity, target, delta=self.delta), {"sigma": float(sigma.mean())})


@hookimpl
def clora_routers() -> list[Component]:
    """`router: {use: round_robin}`."""
    return [Component("round_robin", RoundRobin)]


@hookimpl
def clora_losses() -> list[Component]:
    """`losses: {anchor: {use: huber_anchor}}`."""
    return [Component("huber_anchor", HuberAnchor)]

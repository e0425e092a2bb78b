"""Effects in turn instead of at random, and trajectory anchoring with a Huber loss."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from attrs.validators import gt

from clora.api import (
    Asking,
    Component,
    Draws,
    LossTerm,
    Route,
    Row,
    Scene,
    Stream,
    add_noise,
    hookimpl,
    shift,
    velocity_target,
)


@frozen
class RoundRobin:
    """Every second row is general; effect rows take the bank's effects in turn, over rows and steps."""

    def route(self, draws: Draws, rows: int, effects: Sequence[str]) -> Route:
        """The route of the step that `draws` stands for."""
        turn = draws.step * rows
        return Route.ordered(
            [Row("general") if i % 2 else Row("effect", effects[(turn + i // 2) % len(effects)]) for i in range(rows)]
        )


@frozen
class HuberAnchor:
    """Trajectory anchoring that large errors pull on less: Huber's loss between velocities."""

    streams: tuple[Stream, ...] = ("effect",)
    weight: float = 1.0
    delta: float = field(default=1.0, validator=gt(0.0))

    def __call__(self, scene: Scene) -> Asking[LossTerm]:
        """huber(v_student(y_sigma) - (eps - y)), sigma = shift(U(0, 1))."""
        from torch.nn.functional import huber_loss

        sigma = shift(scene.draws.uniform("sigma", len(scene.rows)), scene.shift)
        noise = scene.draws.normal("noise", scene.targets)
        x_sigma = add_noise(scene.targets, noise, sigma)
        velocity = yield scene.forward("student", x_sigma, sigma, grad=True)
        target = velocity_target(scene.targets, noise)
        return LossTerm(huber_loss(velocity, target, delta=self.delta), {"sigma": float(sigma.mean())})


@hookimpl
def clora_routers() -> list[Component]:
    """`router: {use: round_robin}`."""
    return [Component("round_robin", RoundRobin)]


@hookimpl
def clora_losses() -> list[Component]:
    """`losses: {anchor: {use: huber_anchor}}`."""
    return [Component("huber_anchor", HuberAnchor)]

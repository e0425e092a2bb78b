"""What the components of a step are given, ask of the networks and of one another, and give.

StepContext -> Forward -> velocity or Inside -> Simulated -> LossTerm. All frozen; every tensor's first axis is rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve, field, frozen

from clora.contracts.values import Conditions, Phase, Role, RoleConditions, Route, Stream
from clora.diffusion.flow import guide

if TYPE_CHECKING:
    import torch

    from clora.diffusion.flow import Schedule
    from clora.diffusion.rng import StepRng

T = TypeVar("T")


@frozen
class Forward:
    """One network evaluation that a component asks for: the loop packs all that can run together."""

    role: Role  # who answers, which decides adapter and conditions
    adapters: tuple[str | None, ...]  # the adapter of each row, None = the bare base
    x_sigma: torch.Tensor  # [R, C, H, W]
    sigma: torch.Tensor  # [R]
    conditions: Conditions  # of the R rows
    grad: bool  # True: the answer has a graph to the trained adapter
    through: bool = False  # True: it has one to x_sigma alone, through weights that learn nothing from it
    #: how deep in the network, in (0, 1] of its blocks, features are wanted too; the answer is then an `Inside`
    depths: tuple[float, ...] = ()

    @property
    def recorded(self) -> bool:
        """True where a graph is kept, to the trained adapter or to x_sigma."""
        return self.grad or self.through


@frozen
class Inside:
    """The answer to a forward with `depths`."""

    velocity: torch.Tensor  # [R, C, H, W]
    features: tuple[torch.Tensor, ...]  # of the picture's tokens, [R, L, D], one for each depth


@frozen
class Await:
    """A loss, or another simulation, asks for the outcome of the simulation with this name."""

    simulation: str  # its key under `simulations:`


@frozen
class Simulated:
    """Where a simulation brought the student: its x0 prediction, with gradient in the student phase."""

    rows: tuple[int, ...]  # indices in the whole batch
    x_sigma: torch.Tensor  # the state [R, C, H, W] before the last forward
    sigma: torch.Tensor  # its level [R]
    x0: torch.Tensor  # the student's prediction there [R, C, H, W]

    def on(self, rows: Sequence[int]) -> Simulated:
        """The part that belongs to some rows of the batch."""
        here = [self.rows.index(row) for row in rows]
        return Simulated(tuple(rows), self.x_sigma[here], self.sigma[here], self.x0[here])

    def detach(self) -> Simulated:
        """The same numbers without their graph."""
        return evolve(self, x_sigma=self.x_sigma.detach(), x0=self.x0.detach())


@frozen
class Trajectory:
    """One whole few-step rollout: the state before every step and the x0 predicted there, [steps, B, C, H, W]."""

    x_sigma: torch.Tensor  # the state before every step
    x0: torch.Tensor  # what is predicted there

    def take(self, rows: Sequence[int]) -> Trajectory:
        """The trajectory of some rows only."""
        return Trajectory(self.x_sigma[:, list(rows)], self.x0[:, list(rows)])


@frozen
class LossTerm:
    """A scalar to minimise, the mean over the rows of the step that it was made of, and numbers worth a curve.

    The cycle weighs it by those rows' share of the batch, so that one row weighs as much whatever its stream.
    """

    loss: torch.Tensor  # one number with a graph
    logs: Mapping[str, float] = field(factory=dict)  # name -> number; a curve each in the report
    own: torch.Tensor | None = None  # what the loss's own modules minimise, a scalar on a graph that is theirs alone


#: A component's computation: a generator that yields what it needs (network evaluations, a simulation's outcome),
#: is sent the answers (a velocity [R, C, H, W] per Forward, or an Inside where it has depths, in a tuple or dict as
#: they were asked for; a Simulated per Await) and returns T.
ForwardCoroutine = Generator["Forward | tuple[Forward, ...] | dict[str, Forward] | Await", Any, T]


def _no_pictures(latents: torch.Tensor) -> torch.Tensor:
    raise ValueError("this step has no decoder: give it one as `decode`")


@frozen
class StepContext:
    """All that a simulation or a loss sees of one step, restricted to its own rows."""

    phase: Phase  # whose update it is: the student's or the critic's
    rng: StepRng  # random numbers under this component's own names
    schedule: Schedule  # the student's few-step levels
    shift: float  # of that schedule, for levels that a loss draws
    route: Route  # which stream and effect each of the R rows is of
    rows: tuple[int, ...]  # indices in the whole batch
    conditions: RoleConditions  # what each role is conditioned on
    targets: torch.Tensor  # [R, C, H, W]
    trajectory: Trajectory | None = None  # a rollout that the whole cycle shares; None where there is none
    critic: str = "critic"  # the adapter that plays the role of the critic: a simulation may have its own
    modules: Mapping[str, torch.nn.Module] = field(factory=dict)  # a loss's own, which the core trains
    #: the backbone's decoder: latents [R, C, H, W] -> pictures [R, 3, h, w], clamped to [-1, 1], with their graph
    decode: Callable[[torch.Tensor], torch.Tensor] = _no_pictures
    #: the backbone's own guidance: (conditional, unconditional velocity, w) -> the guided one; u + w (c - u) for most
    guide: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] = guide

    def select(self, streams: Sequence[Stream]) -> StepContext:
        """The step of the rows of some streams."""
        here = self.route.of(streams)
        if len(here) == len(self.rows):
            return self
        return evolve(
            self,
            route=self.route.take(here),
            rows=tuple(self.rows[i] for i in here),
            conditions=self.conditions.take(here),
            targets=self.targets[list(here)],
            trajectory=None if self.trajectory is None else self.trajectory.take(here),
        )

    def named(self, name: str) -> StepContext:
        """The same step with random streams of its own."""
        return evolve(self, rng=self.rng.named(name))

    def forward(
        self,
        role: Role,
        x_sigma: torch.Tensor,
        sigma: torch.Tensor,
        *,
        grad: bool = False,
        through: bool = False,
        depths: Sequence[float] = (),
        at: Sequence[int] | None = None,
    ) -> Forward:
        """A network evaluation by `role` at x_sigma [R, C, H, W], sigma [R]; yield it to get the velocity.

        `at` names the rows of this step that x_sigma holds (all of them by default). With `grad` a graph to the role's
        weights is kept, only for the role that the phase trains; with `through` one to x_sigma, of any role. With
        `depths` the answer is an `Inside`: the velocity, and what the blocks so deep in the network give.
        """
        conditions = self.conditions.of(role)
        route = self.route
        if at is not None:
            conditions, route = conditions.take(at), route.take(at)
        teacher = role in ("teacher", "teacher_unconditional")
        trained = self.critic if role == "critic" else role
        adapters = tuple(row.effect if teacher else trained for row in route.rows)
        trains = grad and role == self.phase
        return Forward(role, adapters, x_sigma, sigma, conditions, trains, through, tuple(depths))

"""The typed values that pass from room to room in one training step.

Route -> Batch -> Prompts -> Conditions -> StepContext -> Forward -> Simulated -> LossTerm -> StepReport. All frozen;
every tensor's first axis is the rows of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from attrs import evolve, field, frozen

from clora.diffusion.flow import guide

if TYPE_CHECKING:
    import torch

    from clora.diffusion.flow import Schedule
    from clora.diffusion.rng import StepRng

Stream = Literal["effect", "general"]
Split = Literal["train", "test"]
Role = Literal["student", "critic", "teacher", "teacher_unconditional"]
Phase = Literal["student", "critic"]
T = TypeVar("T")


@frozen
class EffectCard:
    """What a bank says of one teacher: its LoRA file, its strength and its words."""

    name: str  # the effect's, unique in its bank
    lora: Path  # the LoRA file
    teacher_prompt: str  # what the teacher was trained to read
    caption: str  # "" where nobody has written one yet; `clora caption` does
    scale: float = 1.0  # a factor on the LoRA's own strength
    trigger: str | None = None  # None: the prompt strategy makes one
    pairs: tuple[tuple[Path, Path], ...] = ()  # (before, after) pictures of the effect, for whoever captions it
    #: which of the file's strengths is taken where they disagree: that of its tensors (`file`; None: the same, with a
    #: warning), that of its header (`header`), or this number for every linear; `scale` multiplies it
    strength: Literal["file", "header"] | float | None = None

    def strengths(self) -> list[Any]:
        """All that decides how strong the teacher is, for a hash; equal strengths give equal lists."""
        return [self.scale] if self.strength in (None, "file") else [self.scale, self.strength]


@frozen
class Row:
    """The stream of one row and, in the effect stream, the effect whose teacher it follows."""

    stream: Stream  # `effect` or `general`
    effect: str | None = None  # its name; None in the general stream


@frozen
class Route:
    """The stream and effect of every row of a batch: general rows first, then effect by effect.

    So the rows of one adapter lie side by side.
    """

    rows: tuple[Row, ...]  # one for each row of the batch

    @classmethod
    def ordered(cls, rows: Sequence[Row]) -> Route:
        """The rows sorted by stream and effect."""
        return cls(tuple(sorted(rows, key=lambda r: (r.stream != "general", r.effect or ""))))

    def of(self, streams: Sequence[Stream]) -> tuple[int, ...]:
        """The indices of the rows whose stream is one of `streams`."""
        return tuple(i for i, row in enumerate(self.rows) if row.stream in streams)

    def take(self, rows: Sequence[int]) -> Route:
        """The route of some rows only."""
        return Route(tuple(self.rows[i] for i in rows))


@frozen
class GeneralItem:
    """One unlabelled picture with an instruction, for the general stream."""

    source: str  # name of the picture
    instruction: str  # what to do with it


@frozen
class Prompts:
    """The prompts of one row, which differ under AOP."""

    student: str  # what student and critic read
    teacher: str  # what the teacher reads


@frozen
class Batch:
    """The rows' source pictures by name and, in the effect stream, the teacher's own outputs for them."""

    route: Route  # which stream and effect each row is of
    sources: tuple[str, ...]  # names of the source pictures, one a row
    prompts: tuple[Prompts, ...]  # one a row
    targets: torch.Tensor  # latents [B, C, H, W]; zero in general rows, where no target exists


@frozen
class TextEmbeddings:
    """Encoded prompts: a vector for every token and, where the model's text encoders give one, for the whole prompt."""

    text: torch.Tensor  # [B, L, D]
    mask: torch.Tensor  # [B, L] bool
    pooled: torch.Tensor | None = None  # [B, P]


@frozen
class Conditions:
    """What the network is conditioned on: encoded words and the encoded source picture, row by row."""

    text: torch.Tensor  # [B, L, D]
    mask: torch.Tensor  # [B, L] bool
    source: torch.Tensor  # latents [B, C, H, W]
    pooled: torch.Tensor | None = None  # [B, P]

    def take(self, rows: Sequence[int] | torch.Tensor) -> Conditions:
        """The conditions of some rows, in the order given."""
        index = rows if not isinstance(rows, Sequence) else list(rows)
        pooled = None if self.pooled is None else self.pooled[index]
        return Conditions(self.text[index], self.mask[index], self.source[index], pooled)

    @staticmethod
    def cat(parts: Sequence[Conditions]) -> Conditions:
        """Several batches as one; shorter texts are padded with masked zeros."""
        import torch
        from torch.nn.functional import pad

        length = max(part.text.shape[1] for part in parts)
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditions(
            torch.cat([pad(p.text, (0, 0, 0, length - p.text.shape[1])) for p in parts]),
            torch.cat([pad(p.mask, (0, length - p.mask.shape[1])) for p in parts]),
            torch.cat([p.source for p in parts]),
            torch.cat(pooled) if pooled else None,
        )


@frozen
class RoleConditions:
    """The three conditions of one batch: the student's (and critic's) words, the teacher's, and no words."""

    student: Conditions  # the student's and the critic's
    teacher: Conditions  # the teacher's
    empty: Conditions  # of the teacher's unconditional prediction

    def take(self, rows: Sequence[int]) -> RoleConditions:
        """The conditions of some rows only."""
        return RoleConditions(self.student.take(rows), self.teacher.take(rows), self.empty.take(rows))

    def of(self, role: Role) -> Conditions:
        """What a role is conditioned on."""
        if role == "teacher":
            return self.teacher
        return self.empty if role == "teacher_unconditional" else self.student


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


@frozen
class StepReport:
    """What one cycle (a student update and its critic updates) did and cost."""

    step: int  # student updates done, this one included
    losses: Mapping[str, float]  # name -> value: `ts_dmd`, and `critic.on_target` of the critic
    seconds: float  # that the cycle took
    forward_equivalents: float  # per row of the batch: a forward is 1, a forward with its backward 3
    learning_rate: float  # the student's in this update
    logs: Mapping[str, float] = field(factory=dict)  # what the losses log (`ts_dmd.NAME`), and norms of gradients

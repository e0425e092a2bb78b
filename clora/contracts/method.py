"""The parts of the method: teachers, router, prompts, simulations, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from clora.contracts.step import ForwardCoroutine, LossTerm, Simulated, StepContext, Trajectory
    from clora.contracts.values import EffectCard, GeneralItem, Prompts, Route, StepReport, Stream
    from clora.diffusion.flow import Schedule
    from clora.diffusion.rng import StepRng


class Teachers(Protocol):
    """A bank of effect LoRAs."""

    def cards(self) -> Sequence[EffectCard]:
        """The effects of the bank, in a fixed order; reads the manifest, not the weights."""
        ...


class Router(Protocol):
    """Decides which stream and which teacher every row of a step follows (paper: PDSR)."""

    def route(self, rng: StepRng, rows: int, effects: Sequence[str]) -> Route:
        """The route of the step that `rng` stands for; a pure function, so any step can be asked for in advance."""
        ...


class PromptStrategy(Protocol):
    """Decides what the student and the teacher read (paper: AOP)."""

    def effect(self, card: EffectCard) -> Prompts:
        """The words for a row of the effect stream, and for inference with that effect."""
        ...

    def general(self, item: GeneralItem) -> Prompts:
        """The words for a row of the general stream."""
        ...


@runtime_checkable
class ChecksCards(Protocol):
    """A prompt strategy that can find effects whose words are missing or collide."""

    def check_cards(self, cards: Sequence[EffectCard], tokens: Callable[[str], Sequence[int]] | None) -> Iterable[str]:
        """Every mistake as one sentence that names the effects; `tokens`: the backbone's tokenizer, if it has one."""
        ...


@runtime_checkable
class RequestsCaptions(Protocol):
    """A prompt strategy whose student reads captions, and that knows how to ask for them."""

    def caption_request(self, card: EffectCard, pairs: int) -> str | None:
        """What a captioner is asked beside so many (before, after) pairs; None where captions are turned off."""
        ...


class SimulationSchedule(Protocol):
    """Brings the student to a state it will meet at inference (paper: backward and target simulation)."""

    def simulate(self, step: StepContext) -> ForwardCoroutine[Simulated]:
        """A generator: yields `step.forward("student", ...)` in tuples, returns where the student arrived.

        The last forward is asked for with grad=True; the step drops the gradient in the critic's phase.
        """
        ...


@runtime_checkable
class ChecksSchedule(Protocol):
    """A simulation that cannot walk every few-step schedule."""

    def check_schedule(self, schedule: Schedule) -> Iterable[str]:
        """Problems with the recipe's few-step schedule, such as bounds that leave no step."""
        ...


@runtime_checkable
class SharesTrajectory(Protocol):
    """A simulation whose rollout can serve a whole cycle while the student does not change."""

    def rollout(self, step: StepContext) -> ForwardCoroutine[Trajectory]:
        """The student's full few-step trajectory without gradient; later `simulate` reads `step.trajectory`."""
        ...


class Loss(Protocol):
    """A term of the student's or the critic's objective; `StudentLoss` and `CriticLoss` have what most share."""

    streams: tuple[Stream, ...]
    weight: float

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """A generator over the step of its own streams' rows: yields forwards or an Await, returns the term."""
        ...


@runtime_checkable
class WeighsOverTime(Protocol):
    """A loss whose weight changes in the course of the run."""

    def weight_at(self, progress: float) -> float:
        """The weight after `progress` in [0, 1) of the run's student updates."""
        ...


@runtime_checkable
class Alarms(Protocol):
    """A loss that can tell from the course of what it has logged that a finished run went wrong."""

    def alarms(self, course: Mapping[str, Sequence[tuple[float, float]]]) -> Iterable[str]:
        """A sentence for everything wrong, with what helps; nothing if all is well.

        `course` has (progress in (0, 1], value), rising, by the name of a log as the loss itself gave it.
        """
        ...


@runtime_checkable
class KeepsState(Protocol):
    """A component with running state, such as the moving mean of a norm: checkpointed, and resumed to the last bit."""

    def state(self) -> Mapping[str, torch.Tensor]:
        """All of it as tensors, the same on every rank; the first rank's goes into the checkpoints."""
        ...

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over what `state` gave."""
        ...


@runtime_checkable
class TrainsModules(Protocol):
    """A loss with modules of its own, such as a discriminator: a step hands them to it as `step.modules`.

    They minimise the `own` of the loss's term. The core makes their AdamW (rate `modules_lr`, betas 0 and 0.99),
    averages their gradients over the ranks, clips them like any other and checkpoints all of it.
    """

    modules_lr: float

    def modules(self, latent: Sequence[int], width: int | None) -> Mapping[str, torch.nn.Module]:
        """New modules by name, for latents of the shape (C, H, W); torch's random numbers are seeded for it.

        `width` is D of the features [R, L, D] that a forward with `depths` gives; None of a backbone that shows none.
        """
        ...


@runtime_checkable
class Learns(Protocol):
    """A component that adapts to what training reports."""

    def learn(self, report: StepReport) -> None:
        """Take note of a finished cycle, on every rank, every number of it averaged over the ranks that have it.

        It is told before the next cycle begins. A router that learns is not asked ahead: its teachers are loaded when
        their cycle begins. What it has learnt must be in its `state`, or a resumed run differs.
        """
        ...


@runtime_checkable
class UsesSimulation(Protocol):
    """A loss, or another simulation, that reads the outcome of a simulation, named in the recipe."""

    simulation: str


@runtime_checkable
class UsesCritic(Protocol):
    """A loss that asks the critic, so that the recipe needs a `critic:` section."""

    def needs_critic(self) -> bool:
        """True where this loss will ask for the role `critic`."""
        ...


@runtime_checkable
class ListsLoraFiles(Protocol):
    """A bank that knows its files although some entries are wrong, so that mistakes in both are told at once."""

    def lora_files(self) -> Sequence[tuple[str, Path]]:
        """(effect, LoRA file) of every entry whose file is known; raises nothing."""
        ...


@runtime_checkable
class KeepsCaptions(Protocol):
    """A bank whose captions may lie in a file of their own, which `clora caption` writes."""

    @property
    def captions(self) -> Path | None:
        """The file; None where the recipe names none."""
        ...

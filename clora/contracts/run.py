"""What watches a run: what it is told, and the pictures that it may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import field, frozen

from clora.contracts.bounds import between

if TYPE_CHECKING:
    import torch

    from clora.contracts.values import Prompts, StepReport


@frozen
class RunInfo:
    """What lifecycle hooks and observers are told of a run."""

    name: str  # of the recipe
    folder: Path  # the run's folder, RUNS/NAME-HASH
    digest: str  # a hash of all that decides the run's outcome
    steps: int  # student updates in the whole run


@frozen
class PlanFacts:
    """What an observer is told of the plan of its run."""

    prompts: Mapping[str, Prompts]  # what is read for each effect, in the order of the plan
    recipe: str  # every value of the recipe, as YAML

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects that are trained."""
        return tuple(self.prompts)


@frozen
class SampleRequest:
    """Which pictures an observer is given at its updates: some effects, each on its first test pictures."""

    effects: tuple[str, ...]  # names of the plan's effects
    pictures: int = field(default=4, validator=between(1, 64))  # of each effect


@frozen(eq=False)
class EffectEdits:
    """Test pictures of one effect as the current student edits them; both tensors are [N, 3, H, W] in [-1, 1]."""

    effect: str  # its name
    names: tuple[str, ...]  # of the pictures
    source: torch.Tensor  # before
    student: torch.Tensor  # after: what the current weights make of them


@frozen(eq=False)
class Observation:
    """What an observer is given after one of its updates."""

    run: RunInfo  # whose training it watches
    plan: PlanFacts  # its effects and recipe
    report: StepReport  # of the update that is just done
    folder: Path  # RUN/observers/NAME, which is there: what the observer writes lies below it
    samples: tuple[EffectEdits, ...] = ()  # those that it asked for, in the order of its request


class Observer(Protocol):
    """Watches the training of a run and changes nothing in it.

    It is called on the first rank alone, after every update whose number `every` divides and after the last one; the
    warm start is not observed. After a stop the updates since the last checkpoint are observed again. What it raises
    becomes one warning, and it is not called again in this process. It is no part of the run's digest.
    """

    every: int  # student updates, at least 1

    def observe(self, seen: Observation) -> None:
        """Look at the state after one update; what it returns is ignored."""
        ...


@runtime_checkable
class RequestsSamples(Protocol):
    """An observer that wants pictures: `Observation.samples` then has them."""

    def sample_request(self, effects: Sequence[str]) -> SampleRequest:
        """The pictures it wants, given the plan's effects; asked once, before a model is loaded.

        The pictures are made by the student's current weights as the recipe serves them, from the same noise each
        time, which is not the training's. Refused where processes share one base (`train.shard_base`).
        """
        ...

"""Cycles whose gradients are noted: on several ranks, or of all their rows as one batch in one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from safetensors.torch import save_file
from shallow_emoji import shallow_emoji

from clora.config.load import load_recipe
from clora.contracts.step import StepContext
from clora.contracts.values import Conditions, Phase, RoleConditions, Route, Stream
from clora.diffusion.flow import Schedule
from clora.diffusion.rng import StepRng
from clora.inference.session import ModelSession
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.runs.run_dir import RunDir
from clora.runs.stages.prepare import prepare
from clora.training.batches import Batches
from clora.training.distributed import Distributed
from clora.training.optimizer import TrainableAdapter
from clora.training.start import make_state
from clora.training.trainer import Trainer

RECIPE = Path(__file__).parents[1] / "recipes/collection.yaml"
SETS = (
    *shallow_emoji(),
    "effects=[duotone_ocean, thermal]",
    "student.rank=4",
    "student.steps=4",
    "train.batch_size=3",
    "critic.updates=2",
    "teacher.steps=1",
    "prepare={previews: 0, train_images: 2, general_images: 4}",
)
UPDATES = 2
#: of these every rank has as many rows, so that the mean of the ranks' losses is the loss over all rows
ON_EVERY_ROW = ("bs_dmd", "critic.on_backward")


@frozen
class Together:
    """The draws of several ranks, each row's numbers being those that its own rank draws for its own rows."""

    parts: tuple[StepRng, ...]
    rows: tuple[int, ...]  # of each rank, one behind the other

    @property
    def step(self) -> int:
        return self.parts[0].step

    def at(self, step: int) -> Together:
        return evolve(self, parts=tuple(part.at(step) for part in self.parts))

    def named(self, name: str) -> Together:
        return evolve(self, parts=tuple(part.named(name) for part in self.parts))

    def normal(self, name: str, like: torch.Tensor) -> torch.Tensor:
        shares = zip(self.parts, like.split(self.rows), strict=True)
        return torch.cat([part.normal(name, share) for part, share in shares])

    def uniform(self, name: str, rows: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        assert rows == sum(self.rows)
        shares = zip(self.parts, self.rows, strict=True)
        return torch.cat([part.uniform(name, share, low, high) for part, share in shares])

    def integers(self, name: str, rows: int, high: int) -> torch.Tensor:
        assert rows == sum(self.rows)
        return torch.cat([part.integers(name, share, high) for part, share in zip(self.parts, self.rows, strict=True)])


class StepOfRanks(StepContext):
    """A step whose rows keep the draws of their own ranks when some of them are selected."""

    def select(self, streams: Sequence[Stream]) -> StepContext:
        made = super().select(streams)
        if made is self:
            return self
        rng: Any = self.rng
        owners = torch.arange(len(rng.rows)).repeat_interleave(torch.tensor(rng.rows))
        left = owners[list(self.route.of(streams))].bincount(minlength=len(rng.rows))
        return evolve(made, rng=evolve(rng, rows=tuple(left.tolist())))


@frozen
class Joined:
    """The batches of several ranks as one."""

    batches: Batches

    def context(self, rng: Any, phase: Phase, schedule: Schedule) -> StepContext:
        contexts = [self.batches.context(part, phase, schedule) for part in rng.parts]

        def joined(role: str) -> Conditions:
            return Conditions.cat([getattr(step.conditions, role) for step in contexts])

        first = contexts[0]
        route = Route(tuple(row for step in contexts for row in step.route.rows))
        conditions = RoleConditions(joined("student"), joined("teacher"), joined("empty"))
        targets = torch.cat([step.targets for step in contexts])
        every = tuple(range(len(route.rows)))
        return StepOfRanks(phase, rng, schedule, first.shift, route, every, conditions, targets)


class Noted(TrainableAdapter):
    """Plain gradient descent, whose gradients are kept: Adam would make rounding as large as anything else.

    At the rate 0 nothing moves, and the gradients of all updates add up in the adapter.
    """

    def __init__(self, trained: TrainableAdapter, rate: float = 0.1) -> None:
        super().__init__(trained.adapter, 0.1, trained.train, trained.ranks)
        self.rate = rate
        self.noted: list[torch.Tensor] = []
        self.before = self.gradient.double().clone()

    @property
    def gradient(self) -> torch.Tensor:
        assert self.adapter.flat_grad is not None
        return self.adapter.flat_grad

    def update(self, step: int, *, spoilt: bool = False) -> float:
        self.ranks.average(self.gradient)
        self.noted.append(self.gradient.double() - self.before)
        self.adapter.flat.sub_(self.rate * self.gradient)
        if self.rate:
            self.adapter.zero_grad()
        self.before = self.gradient.double().clone()
        return float(self.noted[-1].norm())

    def wanted(self, here: bool) -> bool:
        return True  # a rank without a term has the gradient zero, which counts in the mean


def plan_here() -> Plan:
    return make_plan(load_recipe(RECIPE, (), list(SETS), discover()))


def cycles(folder: Path, ranks: Distributed, together: Sequence[int] = ()) -> dict[str, torch.Tensor]:
    """Every update's gradient and losses; with `together` those of these ranks' rows as one batch."""
    plan = plan_here()
    session = ModelSession(plan)
    batches: Any = Batches(plan, session, prepare(plan, session, RunDir(folder)))
    rng: Any = StepRng(plan.recipe.seed, rank=ranks.rank)
    if together:
        batches = Joined(batches)
        parts = tuple(StepRng(plan.recipe.seed, rank=rank) for rank in together)
        rng = Together(parts, (plan.recipe.train.batch_size,) * len(parts))
    state = make_state(plan, session, ranks)
    assert state.critic is not None
    student, critic = Noted(state.student), Noted(state.critic)
    trainer = Trainer(plan.recipe, batches, session.evaluator, student, critic)
    made: dict[str, torch.Tensor] = {}
    for update in range(UPDATES):
        logs = trainer.cycle(update, rng)
        for name in ON_EVERY_ROW:
            made[f"{update}.{name}"] = torch.tensor([logs[name]])
            ranks.average(made[f"{update}.{name}"])
    for name, trained in (("student", student), ("critic", critic)):
        made |= {f"gradient.{name}.{i}": grad for i, grad in enumerate(trained.noted)}
    return made


def cycles_of_ranks(ranks: Distributed, folder: Path, out: Path) -> None:
    """Cycles of every rank on rows of its own; the first rank prepares them, and writes what was made to `out`."""
    if not ranks.first:
        ranks.wait()  # the first fills the cache
    else:
        plan = plan_here()
        prepare(plan, ModelSession(plan), RunDir(folder))
        ranks.wait()
    made = cycles(folder, ranks)
    if ranks.first:
        save_file(made, out)

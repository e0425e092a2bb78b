"""Cycles whose gradients are noted: on several ranks, or of all their rows as one batch in one process.

torchrun --nproc_per_node 2 tests/ranks_as_one.py RUN_FOLDER OUT
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from safetensors.torch import save_file

from clora.flow import Schedule
from clora.plan import Plan, make_plan
from clora.plugins import discover
from clora.recipe.load import load_recipe
from clora.runs import RunFolder
from clora.seeding import Draws
from clora.stages.prepare import prepare
from clora.training.batches import Batches
from clora.training.cycle import Cycle
from clora.training.loop import make_state
from clora.training.optimizer import Trained
from clora.training.ranks import Ranks
from clora.values import Conditions, Phase, RoleConditions, Route, Scene, Stream
from clora.world import World

RECIPE = Path(__file__).parents[1] / "recipes/collection.yaml"
SETS = (
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

    parts: tuple[Draws, ...]
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


class SceneOfRanks(Scene):
    """A scene whose rows keep the draws of their own ranks when some of them are selected."""

    def select(self, streams: Sequence[Stream]) -> Scene:
        made = super().select(streams)
        if made is self:
            return self
        draws: Any = self.draws
        owners = torch.arange(len(draws.rows)).repeat_interleave(torch.tensor(draws.rows))
        left = owners[list(self.route.of(streams))].bincount(minlength=len(draws.rows))
        return evolve(made, draws=evolve(draws, rows=tuple(left.tolist())))


@frozen
class Joined:
    """The batches of several ranks as one."""

    batches: Batches

    def scene(self, draws: Any, phase: Phase, schedule: Schedule) -> Scene:
        scenes = [self.batches.scene(part, phase, schedule) for part in draws.parts]

        def joined(role: str) -> Conditions:
            return Conditions.cat([getattr(scene.conditions, role) for scene in scenes])

        first = scenes[0]
        route = Route(tuple(row for scene in scenes for row in scene.route.rows))
        conditions = RoleConditions(joined("student"), joined("teacher"), joined("empty"))
        targets = torch.cat([scene.targets for scene in scenes])
        every = tuple(range(len(route.rows)))
        return SceneOfRanks(phase, draws, schedule, first.shift, route, every, conditions, targets)


class Noted(Trained):
    """Plain gradient descent, whose gradients are kept: Adam would make rounding as large as anything else.

    At the rate 0 nothing moves, and the gradients of all updates add up in the adapter.
    """

    def __init__(self, trained: Trained, rate: float = 0.1) -> None:
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


def cycles(folder: Path, ranks: Ranks, together: Sequence[int] = ()) -> dict[str, torch.Tensor]:
    """Every update's gradient and losses; with `together` those of these ranks' rows as one batch."""
    plan = plan_here()
    world = World(plan)
    batches: Any = Batches(plan, world, prepare(plan, world, RunFolder(folder)))
    draws: Any = Draws(plan.recipe.seed, rank=ranks.rank)
    if together:
        batches = Joined(batches)
        parts = tuple(Draws(plan.recipe.seed, rank=rank) for rank in together)
        draws = Together(parts, (plan.recipe.train.batch_size,) * len(parts))
    state = make_state(plan, world, ranks)
    assert state.critic is not None
    student, critic = Noted(state.student), Noted(state.critic)
    cycle = Cycle(plan.recipe, batches, world.evaluator, student, critic)
    made: dict[str, torch.Tensor] = {}
    for update in range(UPDATES):
        logs = cycle.run(update, draws)
        for name in ON_EVERY_ROW:
            made[f"{update}.{name}"] = torch.tensor([logs[name]])
            ranks.average(made[f"{update}.{name}"])
    for name, trained in (("student", student), ("critic", critic)):
        made |= {f"gradient.{name}.{i}": grad for i, grad in enumerate(trained.noted)}
    return made


def main(folder: Path, out: Path) -> None:
    ranks = Ranks.current()
    if not ranks.first:
        ranks.wait()  # the first fills the cache
    else:
        plan = plan_here()
        prepare(plan, World(plan), RunFolder(folder))
        ranks.wait()
    made = cycles(folder, ranks)
    if ranks.first:
        save_file(made, out)
    ranks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Cycles whose gradients are noted: on the ranks of a launcher, or of all their rows as one batch in one process.

torchrun --nproc_per_node 2 tests/doubled_batch.py RUN_FOLDER OUT
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
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
from clora.values import Conditions, Phase, RoleConditions, Route, Scene
from clora.world import World

RECIPE = Path(__file__).parents[1] / "recipes/collection.yaml"
SETS = (
    "effects=[duotone_ocean, thermal]",
    "router.p_switch=1.0",  # as many rows of a stream on each rank: only then do means of means agree
    "student.rank=4",
    "student.steps=4",
    "train.batch_size=2",
    "critic.updates=2",
    "teacher.steps=1",
)
UPDATES = 2


def plan_here() -> Plan:
    return make_plan(load_recipe(RECIPE, (), list(SETS), discover()))


class Noted(Trained):
    """Plain gradient descent, whose gradients are kept: Adam would make rounding as large as anything else."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained.adapter, 0.1, trained.train, trained.ranks)
        self.noted: list[torch.Tensor] = []

    def update(self, step: int, *, spoilt: bool = False) -> float:
        grad = self.adapter.flat_grad
        assert grad is not None
        self.ranks.average(grad)
        self.noted.append(grad.clone())
        self.adapter.flat.sub_(0.1 * grad)
        self.adapter.zero_grad()
        return float(self.noted[-1].norm())


@frozen
class Together:
    """The draws of several ranks, their rows one behind the other."""

    parts: tuple[Draws, ...]

    @property
    def step(self) -> int:
        return self.parts[0].step

    def at(self, step: int) -> Together:
        return Together(tuple(part.at(step) for part in self.parts))

    def named(self, name: str) -> Together:
        return Together(tuple(part.named(name) for part in self.parts))

    def normal(self, name: str, like: torch.Tensor) -> torch.Tensor:
        return torch.cat([d.normal(name, x) for d, x in zip(self.parts, like.chunk(len(self.parts)), strict=True)])

    def uniform(self, name: str, rows: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return torch.cat([part.uniform(name, rows // len(self.parts), low, high) for part in self.parts])

    def integers(self, name: str, rows: int, high: int) -> torch.Tensor:
        return torch.cat([part.integers(name, rows // len(self.parts), high) for part in self.parts])


@frozen
class Doubled:
    """The batches of several ranks as one."""

    batches: Batches

    def scene(self, draws: Any, phase: Phase, schedule: Schedule) -> Scene:
        scenes = [self.batches.scene(part, phase, schedule) for part in draws.parts]
        rows = tuple(row for scene in scenes for row in scene.route.rows)

        def joined(role: str) -> Conditions:
            return Conditions.cat([getattr(scene.conditions, role) for scene in scenes])

        conditions = RoleConditions(joined("student"), joined("teacher"), joined("empty"))
        targets = torch.cat([scene.targets for scene in scenes])
        first = scenes[0]
        return Scene(phase, draws, schedule, first.shift, Route(rows), tuple(range(len(rows))), conditions, targets)


def cycles(folder: Path, ranks: Ranks, together: Sequence[int] = ()) -> dict[str, torch.Tensor]:
    """Every update's gradient and losses; with `together` those of these ranks' rows as one batch."""
    plan = plan_here()
    world = World(plan)
    batches: Any = Batches(plan, world, prepare(plan, world, RunFolder(folder)))
    draws: Any = Draws(plan.recipe.seed, rank=ranks.rank)
    if together:
        batches = Doubled(batches)
        draws = Together(tuple(Draws(plan.recipe.seed, rank=rank) for rank in together))
    state = make_state(plan, world, ranks)
    assert state.critic is not None
    student, critic = Noted(state.student), Noted(state.critic)
    cycle = Cycle(plan.recipe, batches, world.evaluator, student, critic)
    made: dict[str, torch.Tensor] = {}
    for update in range(UPDATES):
        for name, value in cycle.run(update, draws).items():
            if "." not in name or (name.startswith("critic.on_") and name.count(".") == 1):
                made[f"{update}.{name}"] = torch.tensor([value])
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

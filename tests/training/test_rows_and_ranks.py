"""With `train.mean_over: batch` twelve rows in one process are twelve ranks of one row, and twelve accumulated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve, frozen

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

RECIPES = Path(__file__).parents[2] / "recipes"
ROWS = 12
SETS = (
    "effects=[duotone_ocean, thermal]",
    "student={rank: 4, alpha: 4, steps: 4}",
    f"train.batch_size={ROWS}",
    "critic.updates=2",
    "train.mean_over=batch",
    "teacher.steps=1",
    "prepare={previews: 0, train_images: 2, general_images: 4}",
)


@frozen
class RowByRow:
    """The draws of several ranks of one row each, a row's numbers being those that its own rank would draw."""

    parts: tuple[Draws, ...]

    @property
    def step(self) -> int:
        return self.parts[0].step

    def at(self, step: int) -> RowByRow:
        return RowByRow(tuple(part.at(step) for part in self.parts))

    def named(self, name: str) -> RowByRow:
        return RowByRow(tuple(part.named(name) for part in self.parts))

    def normal(self, name: str, like: torch.Tensor) -> torch.Tensor:
        return torch.cat([d.normal(name, row[None]) for d, row in zip(self.parts, like, strict=True)])

    def uniform(self, name: str, rows: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        assert rows == len(self.parts)
        return torch.cat([part.uniform(name, 1, low, high) for part in self.parts])

    def integers(self, name: str, rows: int, high: int) -> torch.Tensor:
        assert rows == len(self.parts)
        return torch.cat([part.integers(name, 1, high) for part in self.parts])


class SceneOfRanks(Scene):
    """A scene whose rows keep the draws of their own ranks when some of them are selected."""

    def select(self, streams: Sequence[Stream]) -> Scene:
        made = super().select(streams)
        if made is self:
            return self
        parts: Any = self.draws
        return evolve(made, draws=RowByRow(tuple(parts.parts[i] for i in self.route.of(streams))))


@frozen
class Joined:
    """The batches of several ranks as one."""

    batches: Batches

    def scene(self, draws: Any, phase: Phase, schedule: Schedule) -> Scene:
        scenes = [self.batches.scene(part, phase, schedule) for part in draws.parts]

        def joined(role: str) -> Conditions:
            return Conditions.cat([getattr(scene.conditions, role) for scene in scenes])

        route = Route(tuple(row for scene in scenes for row in scene.route.rows))
        conditions = RoleConditions(joined("student"), joined("teacher"), joined("empty"))
        targets = torch.cat([scene.targets for scene in scenes])
        every = tuple(range(len(route.rows)))
        return SceneOfRanks(phase, draws, schedule, scenes[0].shift, route, every, conditions, targets)


class Noted(Trained):
    """The gradient of one update is kept and nothing moves: Adam would make rounding as large as anything else."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained.adapter, 0.1, trained.train, trained.ranks)
        self.noted: list[torch.Tensor] = []

    def update(self, step: int, *, spoilt: bool = False) -> float:
        grad = self.adapter.flat_grad
        assert grad is not None
        self.noted.append(grad.double().clone())
        self.adapter.zero_grad()
        return float(self.noted[-1].norm())

    def wanted(self, here: bool) -> bool:
        return True  # a row without a term has the gradient zero, which counts in the mean


def small_plan(recipe: str, sets: Iterable[str], catalogue: Any) -> Plan:
    return make_plan(load_recipe(RECIPES / recipe, (), [*SETS, *sets], catalogue))


@pytest.mark.parametrize(
    ("recipe", "sets"),
    [
        ("collection.yaml", ()),
        ("collection.yaml", ("train.schedule=shared",)),
        ("collection.yaml", ("router={use: pdsr, p_switch: 0.2}", "train.pack=false")),
        ("collection.yaml", ("losses.ts_dmd.weight=0.3", "losses.ta_fm.weight=2.0", "student.shift=1.0")),
        ("ablation_no_aop.yaml", ()),
        ("ablation_pdsr_only.yaml", ()),
        ("ablation_no_pdsr.yaml", ()),
    ],
)
def test_twelve_rows_in_one_batch_have_the_mean_gradient_of_twelve_ranks_of_one_row(recipe, sets, tmp_path):
    catalogue = discover()
    whole = small_plan(recipe, sets, catalogue)
    single = small_plan(recipe, (*sets, "train.batch_size=1"), catalogue)
    world = World(single)
    targets = prepare(single, world, RunFolder(tmp_path / "run"))
    state = make_state(single, world, Ranks())
    assert state.critic is not None
    torch.manual_seed(0)
    for trained in (state.student, state.critic):  # B = 0 would leave A without gradient
        trained.adapter.flat.normal_(0, 0.02)
    one_row = Batches(single, world, targets)

    def gradients(plan: Plan, batches: Any, draws: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        student, critic = Noted(state.student), Noted(state.critic)
        Cycle(plan.recipe, batches, world.evaluator, student, critic).run(0, draws)
        return student.noted, critic.noted

    ranks = [Draws(0, rank=rank) for rank in range(ROWS)]
    each = [gradients(single, one_row, draws) for draws in ranks]
    ours = gradients(whole, Joined(one_row), RowByRow(tuple(ranks)))
    streams = [one_row.scene(draws, "student", Schedule.shifted(4, 3.0)).route.rows[0].stream for draws in ranks]
    assert set(streams) == ({"effect"} if "no_pdsr" in recipe else {"effect", "general"})  # an uneven share of each
    for who in (0, 1):
        assert len(ours[who]) == (1, 2)[who]
        for update, together in enumerate(ours[who]):
            mean = torch.stack([rank[who][update] for rank in each]).mean(0)
            assert together.norm() > 0
            assert (together - mean).norm() <= 2e-4 * mean.norm(), (who, update)

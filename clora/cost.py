"""What a run will cost, counted before any model is loaded.

The training loop itself is run on empty one-channel latents with an evaluator that only counts, so a third party's
losses and schedules are counted exactly as the built-in ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from clora.flow import Schedule
from clora.seeding import Draws
from clora.training.cycle import Cycle
from clora.values import Conditions, Forward, Phase, RoleConditions, Scene

if TYPE_CHECKING:
    from clora.plan import Plan

_CYCLES = 48  # enough for the mean over routes and drawn steps to settle within a few per cent


class _Count:
    """An evaluator that answers with the state itself and counts what a real one would do."""

    def __init__(self) -> None:
        self.row_forwards = 0.0

    def __call__(self, forwards: Sequence[Forward]) -> list[torch.Tensor]:
        answers = []
        for forward in forwards:
            self.row_forwards += forward.x_sigma.shape[0] * (3 if forward.grad else 1)
            answers.append(forward.x_sigma.detach().clone().requires_grad_(forward.grad))
        return answers


class _EmptyScenes:
    """Batches of the recipe's routes without pictures."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.effects = tuple(card.name for card in plan.cards)

    def scene(self, draws: Draws, phase: Phase, schedule: Schedule) -> Scene:
        rows = self.plan.recipe.train.batch_size
        route = self.plan.recipe.router.route(draws.named("router"), rows, self.effects)
        empty = Conditions(torch.zeros(rows, 1, 1), torch.ones(rows, 1, dtype=torch.bool), torch.zeros(rows, 1, 2, 2))
        conditions = RoleConditions(empty, empty, empty)
        shift = self.plan.recipe.student.shift
        return Scene(phase, draws, schedule, shift, route, tuple(range(rows)), conditions, torch.zeros(rows, 1, 2, 2))


class _NoUpdate:
    """A trained adapter that stays as it is."""

    def wanted(self, here: bool) -> bool:
        return here

    def update(self, step: int, *, spoilt: bool = False) -> float:
        return 0.0


def forward_equivalents(plan: Plan, cycles: int = _CYCLES) -> float:
    """The mean cost of one cycle per row of the batch: a forward is 1, a forward with its backward 3."""
    recipe = plan.recipe
    if not recipe.losses:
        return 0.0
    count = _Count()
    still = _NoUpdate()
    cycle = Cycle(recipe, _EmptyScenes(plan), count, still, still)  # pyright: ignore[reportArgumentType]
    for update in range(cycles):
        cycle.run(update, Draws(recipe.seed))
    return count.row_forwards / cycles / recipe.train.batch_size


def cost(plan: Plan) -> str:
    """What the run will cost, in words: updates, forward passes, the adapters' memory."""
    recipe = plan.recipe
    shapes = recipe.backbone.shapes()
    numbers = sum(recipe.student.rank * (inputs + outputs) for inputs, outputs in shapes.values())
    trained = 1 if recipe.critic is None else 2
    copies = 4 * trained + (recipe.student.ema is not None)  # weights, gradients, two moments each; the average
    per_cycle = forward_equivalents(plan)
    updates = recipe.train.steps if recipe.losses else 0
    critic_updates = updates * (recipe.critic.updates if recipe.critic else 0)
    forwards = per_cycle * updates * recipe.train.batch_size
    facts = {
        "effects": f"{len(plan.cards)}",
        "student": f"rank {recipe.student.rank} on {len(shapes)} linears, {numbers / 1e6:.2f} M numbers",
        "updates": f"{updates:,} of the student, {critic_updates:,} of the critic, {recipe.train.batch_size} rows each",
        "forward passes": f"{per_cycle:.1f} a row and cycle ({recipe.train.schedule} schedule; a backward counts 2), "
        f"{forwards:,.0f} in all",
        "memory": f"{copies * numbers * 4 / 2**20:,.0f} MiB for the adapters in training (float32), beside the base",
    }
    return "\n".join(f"{name:<15} {fact}" for name, fact in facts.items())

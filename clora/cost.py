"""What a run will cost, counted before any model is loaded.

The training loop itself is run on empty one-channel latents with an evaluator that only counts, so a third party's
losses and schedules are counted exactly as the built-in ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen

from clora.flow import Schedule
from clora.lora_files.check import numbers_held
from clora.protocols import KnowsFootprint, trained_shapes
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
        self.held = 0  # rows whose activations wait for the backward of the current update
        self.most_held = 0

    def __call__(self, forwards: Sequence[Forward]) -> list[torch.Tensor]:
        answers = []
        for forward in forwards:
            rows = forward.x_sigma.shape[0]
            self.row_forwards += rows * (3 if forward.grad else 1)
            self.held += rows if forward.grad else 0
            self.most_held = max(self.most_held, self.held)
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

    def __init__(self, count: _Count) -> None:
        self.count = count

    def wanted(self, here: bool) -> bool:
        return here

    def update(self, step: int, *, spoilt: bool = False) -> float:
        self.count.held = 0
        return 0.0


@frozen
class Counted:
    """The mean cost of one cycle per row (a forward is 1, with its backward 3), and the most rows one update holds."""

    forward_equivalents: float
    rows_held: int


def count(plan: Plan, cycles: int = _CYCLES) -> Counted:
    """Run the recipe's own loop on empty latents and count."""
    recipe = plan.recipe
    if not recipe.losses:
        return Counted(0.0, 0)
    counting = _Count()
    still = _NoUpdate(counting)
    cycle = Cycle(recipe, _EmptyScenes(plan), counting, still, still)  # pyright: ignore[reportArgumentType]
    for update in range(cycles):
        cycle.run(update, Draws(recipe.seed))
    return Counted(counting.row_forwards / cycles / recipe.train.batch_size, counting.most_held)


def forward_equivalents(plan: Plan, cycles: int = _CYCLES) -> float:
    """The mean cost of one cycle per row of the batch: a forward is 1, a forward with its backward 3."""
    return count(plan, cycles).forward_equivalents


def cost(plan: Plan) -> str:
    """What the run will cost, in words: updates, forward passes, memory."""
    recipe = plan.recipe
    shapes = trained_shapes(recipe.backbone)
    numbers = sum(recipe.student.rank * (inputs + outputs) for inputs, outputs in shapes.values())
    counted = count(plan)
    updates = recipe.train.steps if recipe.losses else 0
    critic_updates = updates * (recipe.critic.updates if recipe.critic else 0)
    forwards = counted.forward_equivalents * updates * recipe.train.batch_size
    facts = {
        "effects": f"{len(plan.cards)}",
        "student": f"rank {recipe.student.rank} on {len(shapes)} linears, {numbers / 1e6:.2f} M numbers",
        "updates": f"{updates:,} of the student, {critic_updates:,} of the critic, {recipe.train.batch_size} rows each",
        "forward passes": f"{counted.forward_equivalents:.1f} a row and cycle ({recipe.train.schedule} schedule; "
        f"a backward counts 2), {forwards:,.0f} in all",
        "memory": _memory(plan, numbers, counted.rows_held),
    }
    return "\n".join(f"{name:<15} {fact}" for name, fact in facts.items())


def _memory(plan: Plan, numbers: int, rows_held: int) -> str:
    """The adapters' bytes, and the base's and its activations' where the backbone can tell them."""
    recipe = plan.recipe
    trained = 1 if recipe.critic is None else 2
    copies = 4 * trained + (recipe.student.ema is not None)  # weights, gradients, two moments each; the average
    copies = copies if recipe.losses else 0
    shapes = recipe.backbone.shapes()
    teachers = sum(numbers_held(card.lora, shapes) for card in plan.cards)
    parts = {"adapters in training": copies * numbers * 4, "teachers": teachers * 4}
    if not isinstance(recipe.backbone, KnowsFootprint):
        return f"{_listed(parts)} (float32), beside the base, whose backbone does not tell"
    footprint = recipe.backbone.footprint()
    parts = {"base": footprint.weights, **parts, f"activations of {rows_held} rows": footprint.row * rows_held}
    return f"about {sum(parts.values()) / 2**20:,.0f} MiB for tensors: {_listed(parts)}"


def _listed(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{size / 2**20:,.0f} MiB {name}" for name, size in parts.items())

"""What a run will cost, counted before any model is loaded.

The training loop itself is run on empty one-channel latents with an evaluator that only counts, so a third party's
losses and schedules are counted exactly as the built-in ones. The work is bounded, whatever the recipe asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING

import torch

from clora.contracts.backbone import StatesLatents, feature_width, trained_shapes
from clora.contracts.step import Forward, Inside, StepContext
from clora.contracts.values import Conditions, Phase, RoleConditions
from clora.diffusion.flow import Schedule
from clora.diffusion.rng import StepRng
from clora.errors import CloraError
from clora.planning.memory import USABLE, Counted, phases, savings, teachers_bytes, trained_bytes, trained_numbers
from clora.planning.numbers import notes
from clora.planning.shift import student_shift
from clora.planning.teacher_schedule import route_of
from clora.training.critics import own_critics
from clora.training.distributed import Distributed
from clora.training.owned import OwnedParts
from clora.training.trainer import Trainer
from clora.training.warm_start import warm_plan

if TYPE_CHECKING:
    from clora.planning.plan import Plan

_CYCLES = 48  # enough for the mean over routes and drawn steps to settle within a few per cent
#: network evaluations and terms of losses after which counting stops; the paper's recipe has 4,000 in its 48 cycles
MOST_WORK = 10_000
#: an evaluation of more rows counts as several of so many: it takes as long
ROWS_AT_ONCE = 16
#: rows of a batch that are run; what a larger batch costs is counted on so many and multiplied
MOST_ROWS = 64
#: the side of the latents that are counted on
SIDE = 4


class _Enough(Exception):  # noqa: N818 - it signals that counting ends here
    """The budget is spent in the middle of a cycle."""


class _Count:
    """An evaluator that answers with the state itself and counts what a real one would do.

    Raises _Enough once it has been asked for more than `most` evaluations of ROWS_AT_ONCE rows and terms of losses.
    """

    def __init__(self, pack: bool, width: int | None = None, most: int = MOST_WORK) -> None:
        self.pack = pack
        self.width = width  # of features; None where the backbone shows none
        self.left = most
        self.row_forwards = 0.0
        self.held = 0  # rows whose activations wait for the backward of the current update
        self.most_held = 0
        self.most = {True: 0, False: 0}  # rows of one pass through the network, with gradient and without

    def __call__(self, forwards: Sequence[Forward]) -> list[torch.Tensor | Inside]:
        answers: list[torch.Tensor | Inside] = []
        together = {True: 0, False: 0}
        self.spend(sum(ceil(len(forward.x_sigma) / ROWS_AT_ONCE) for forward in forwards))
        for forward in forwards:
            rows = forward.x_sigma.shape[0]
            recorded = forward.recorded
            self.row_forwards += rows * (3 if recorded else 1)
            self.held += rows if recorded else 0
            self.most_held = max(self.most_held, self.held)
            together[recorded] = rows + (together[recorded] if self.pack else 0)
            self.most[recorded] = max(self.most[recorded], together[recorded])
            answers.append(self._answer(forward))
        return answers

    def _answer(self, forward: Forward) -> torch.Tensor | Inside:
        """The state itself, and features of a token for each of its places, with a graph where one is asked for."""
        x = forward.x_sigma if forward.through else forward.x_sigma.detach().clone().requires_grad_(forward.grad)
        if not forward.depths:
            return x
        if self.width is None:
            raise CloraError("asks for features, and the backbone shows none")
        tokens = x.mean(1).flatten(1)[..., None].expand(-1, -1, self.width)
        return Inside(x, (tokens,) * len(forward.depths))

    def spend(self, work: int) -> None:
        """Take off the budget. Raises _Enough where it is spent."""
        self.left -= work
        if self.left < 0:
            raise _Enough


class _EmptySteps:
    """Batches of the recipe's routes without pictures."""

    def __init__(self, plan: Plan, rows: int) -> None:
        self.plan = plan
        self.rows = rows
        self.effects = plan.mix
        self.shift = student_shift(plan.recipe)
        self.latent = (_channels(plan), SIDE, SIDE)

    def context(self, rng: StepRng, phase: Phase, schedule: Schedule) -> StepContext:
        rows = self.rows
        route = route_of(self.plan.recipe, rng, self.effects, self.plan.owners, rows)
        latents = torch.zeros(rows, *self.latent)
        empty = Conditions(torch.zeros(rows, 1, 1), torch.ones(rows, 1, dtype=torch.bool), latents)
        conditions = RoleConditions(empty, empty, empty)
        whole = tuple(range(rows))
        return StepContext(phase, rng, schedule, self.shift, route, whole, conditions, latents, decode=_pictures)


def _pictures(latents: torch.Tensor) -> torch.Tensor:
    """Pictures [R, 3, 8 H, 8 W] of latents [R, C, H, W], with a graph and without meaning."""
    return latents.mean(1, keepdim=True).expand(-1, 3, -1, -1).repeat_interleave(8, 2).repeat_interleave(8, 3)


def _channels(plan: Plan) -> int:
    """The channels of the backbone's latents; 1 where they are not known."""
    backbone = plan.recipe.backbone
    with suppress(CloraError):
        return backbone.latent_channels() if isinstance(backbone, StatesLatents) else 1
    return 1


class _NoUpdate:
    """A trained adapter that stays as it is; an update takes off the budget too, for some ask for no evaluation."""

    def __init__(self, count: _Count, losses: int) -> None:
        self.count = count
        self.losses = losses

    def wanted(self, here: bool) -> bool:
        self.count.spend(self.losses)
        return here

    def update(self, step: int, *, spoilt: bool = False) -> float:
        self.count.held = 0
        return 0.0


def count(plan: Plan, cycles: int = _CYCLES) -> Counted:
    """Run the recipe's own loop on empty latents and count.

    Bounded by MOST_WORK evaluations of ROWS_AT_ONCE rows: of dear cycles fewer are run, of a very dear one a part.
    """
    recipe = plan.recipe
    if not recipe.losses:
        return Counted(0.0, 0)
    rows = min(recipe.train.batch_size, MOST_ROWS)
    counting, whole = _Count(recipe.train.pack, feature_width(recipe.backbone)), 0
    still = _NoUpdate(counting, len(recipe.losses) + (len(recipe.critic.losses) if recipe.critic else 0))
    trainer = _trainer(plan, _EmptySteps(plan, rows), counting, still)
    done = 0.0
    with trainer.owned.untouched(), suppress(_Enough):
        while whole < cycles:
            trainer.cycle(whole, StepRng(recipe.seed))
            whole, done = whole + 1, counting.row_forwards
    forwards = done / whole if whole else counting.row_forwards
    held, with_grad, without = (
        ceil(most * recipe.train.batch_size / rows)
        for most in (counting.most_held, counting.most[True], counting.most[False])
    )
    return Counted(forwards / rows, held, with_grad, without, cut_short=not whole)


def _trainer(plan: Plan, contexts: _EmptySteps, counting: _Count, still: _NoUpdate) -> Trainer:
    """The recipe's own trainer, of which nothing is updated but the modules of its components, which are put back."""
    own = dict.fromkeys(own_critics(plan.recipe.critic), still)
    owned = OwnedParts.of(plan.recipe, contexts.latent, torch.device("cpu"), Distributed(), plan.owners)
    parts = plan.recipe, contexts, counting, still, still
    return Trainer(*parts, own=own, owners=plan.owners, owned=owned)  # pyright: ignore[reportArgumentType]


def lag_cost(plan: Plan) -> tuple[int, float] | None:
    """How often the critic's lag is measured and what it costs a row each time, from a few batches; None without."""
    recipe = plan.recipe
    lag = recipe.critic.lag if recipe.critic else None
    if lag is None or not recipe.losses:
        return None
    rows = min(recipe.train.batch_size, MOST_ROWS)
    counting, contexts = _Count(recipe.train.pack, feature_width(recipe.backbone)), _EmptySteps(plan, rows)
    still = _NoUpdate(counting, 1)
    trainer = _trainer(plan, contexts, counting, still)
    done = 0
    with trainer.owned.untouched(), suppress(_Enough):
        while done < _CYCLES:
            trainer.terms.of("critic", contexts.context(StepRng(recipe.seed).at(done), "critic", trainer.schedule))
            done += 1
    each = counting.row_forwards / max(done, 1) / rows
    return recipe.train.steps // lag.every, each * (lag.updates + 2 * lag.batches)


def forward_equivalents(plan: Plan, cycles: int = _CYCLES) -> float:
    """The mean cost of one cycle per row of the batch: a forward is 1, a forward with its backward 3."""
    return count(plan, cycles).forward_equivalents


def cost(plan: Plan, room: int | None = None) -> str:
    """What the run will cost, in words: updates, forward passes, memory; with `room` bytes, whether it fits them."""
    recipe = plan.recipe
    shapes = trained_shapes(recipe.backbone)
    numbers = trained_numbers(plan)
    counted = count(plan)
    updates = recipe.train.steps if recipe.losses else 0
    critic_updates = updates * (recipe.critic.updates if recipe.critic else 0)
    forwards = counted.forward_equivalents * updates * recipe.train.batch_size
    more = "more than " if counted.cut_short else ""
    own = len(own_critics(recipe.critic))
    critics = f"each of {own + 1} critics" if own else "the critic"
    facts = {
        "effects": f"{len(plan.cards)}",
        "student": f"rank {recipe.student.rank} on {len(shapes)} linears, {numbers / 1e6:.2f} M numbers",
        "schedule": plan.schedule,
        "updates": f"{updates:,} of the student, {critic_updates:,} of {critics}, {recipe.train.batch_size} rows each",
        "forward passes": f"{more}{counted.forward_equivalents:.1f} a row and cycle ({recipe.train.schedule} "
        f"schedule; a backward counts 2), {more}{forwards:,.0f} in all",
    }
    warm = warm_plan(plan)
    if warm is not None:
        each = forward_equivalents(warm)
        whole = each * warm.recipe.train.steps * recipe.train.batch_size
        facts["warm start"] = f"{warm.recipe.train.steps:,} updates before it, {each:.1f} a row, {whole:,.0f} in all"
    probes = lag_cost(plan)
    if probes is not None:
        facts["critic lag"] = f"{probes[0]:,} times {probes[1]:.1f} a row, beside the cycles"
    lines = [f"{name:<15} {fact}" for name, fact in facts.items()]
    lines += [f"{'note':<15} {note}" for note in notes(recipe)]
    return "\n".join([*lines, *_memory(plan, counted, room)])


def _memory(plan: Plan, counted: Counted, room: int | None) -> Iterator[str]:
    """The predicted memory by phase and part, whether it fits and, if not, what would save how much."""
    made = phases(plan, counted)
    if not made:
        known = {"adapters in training": trained_bytes(plan), "teachers": teachers_bytes(plan)}
        yield f"{'memory':<15} {_listed(known)}, beside the base, whose backbone does not tell"
        return
    peak = max(made, key=lambda phase: phase.total)
    yield f"{'memory':<15} predicted: {_size(peak.total)} at most, in {peak.name}"
    for phase in made:
        yield f"  {phase.name:<13} {_size(phase.total)}: {_listed(phase.parts)}"
    if room is None:
        return
    usable = round(room * USABLE)
    if peak.total <= usable:
        yield f"  it fits in {_size(room)}"
        return
    yield f"  more than the {_size(usable)} that tensors may fill of {_size(room)}; what helps, the cheapest first:"
    before = peak.total
    for saving in savings(plan, counted, usable):
        yield f"  - {saving.key}: {_size(before - saving.peak)} less, {_size(saving.peak)}"
        before = saving.peak
    if before > usable:
        yield f"  - and still {_size(before - usable)} too much: smaller pictures, or a larger GPU"


def _size(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def _listed(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{_size(size)} {name}" for name, size in parts.items())

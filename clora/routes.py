"""Which teachers every cycle of a run asks for, known from the draws alone: before the run, and a cycle ahead in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clora.recipe.schema import Recipe
    from clora.seeding import Draws
    from clora.values import Route


def first_step(recipe: Recipe, update: int) -> int:
    """The step of the student's batch in cycle `update` (0-based); its critic updates take the steps from there on."""
    return update * max(1, recipe.critic.updates if recipe.critic else 0)


def route_of(recipe: Recipe, draws: Draws, effects: Sequence[str]) -> Route:
    """The ways of the rows in the step of `draws`."""
    return recipe.router.route(draws.named("router"), recipe.train.batch_size, effects)


def teachers_of(recipe: Recipe, draws: Draws, effects: Sequence[str], update: int) -> tuple[str, ...]:
    """The different teachers that the student's batch of cycle `update` follows, in the order of its rows."""
    route = route_of(recipe, draws.at(first_step(recipe, update)), effects)
    return tuple(dict.fromkeys(row.effect for row in route.rows if row.effect is not None))


#: rows of a run whose ways are looked at before it starts: twenty times the paper's 5,000
MOST_ROWS = 100_000


def foreseen(recipe: Recipe) -> range:
    """The cycles that are looked at before a run starts: all of them, or as many, evenly spread, as MOST_ROWS allow."""
    cycles, most = recipe.train.steps, max(1, MOST_ROWS // recipe.train.batch_size)
    return range(0, cycles, max(1, -(-cycles // most)))


def slots_problem(recipe: Recipe, draws: Draws, effects: Sequence[str]) -> str | None:
    """A sentence where a batch of the run follows more teachers than there are slots, on the rank of `draws`.

    Of a run with more rows than MOST_ROWS, some batches are looked at.
    """
    slots = recipe.teacher.slots
    if slots is None or slots >= min(recipe.train.batch_size, len(effects)):
        return None
    most = max((len(teachers_of(recipe, draws, effects, n)) for n in foreseen(recipe)), default=0)
    if most <= slots:
        return None
    return (
        f"{slots} are fewer than the {most} teachers that one batch follows (train.batch_size "
        f"{recipe.train.batch_size}, {len(effects)} effects); give {most}, or {2 * most} to load the next batch's "
        "while this one trains, or let the router give the whole batch one effect"
    )

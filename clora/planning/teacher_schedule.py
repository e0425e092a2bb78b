"""Which teachers every cycle of a run asks for, known from the draws alone: before the run, and a cycle ahead in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from clora.contracts.values import Route, Row, Stream
from clora.errors import hint, quoted
from clora.plugin_system.guard import Owners, came

if TYPE_CHECKING:
    from clora.config.schema import Recipe
    from clora.diffusion.rng import StepRng

STREAMS: tuple[str, ...] = get_args(Stream)


def first_step(recipe: Recipe, update: int) -> int:
    """The step of the student's batch in cycle `update` (0-based); its critic updates take the steps from there on."""
    return update * max(1, recipe.critic.updates if recipe.critic else 0)


def route_of(
    recipe: Recipe, rng: StepRng, effects: Sequence[str], owners: Owners | None = None, rows: int | None = None
) -> Route:
    """The ways of the rows in the step of `rng`, a batch or so many. Raises ComponentError for what is no route."""
    owners, rows = owners or Owners(), recipe.train.batch_size if rows is None else rows
    with owners.calling("router"):
        route = recipe.router.route(rng.named("router"), rows, effects)
    problem = route_problem(route, rows, effects)
    if problem is not None:
        raise owners.error("router", problem)
    return route


def route_problem(route: object, rows: int, effects: Sequence[str]) -> str | None:
    """What is wrong with what a router gave for so many rows; a row too few would train less in silence."""
    if not isinstance(route, Route) or not isinstance(route.rows, tuple):
        return f"gave {came(route)}; expected a Route"
    if len(route.rows) != rows:
        return f"gave a route of {len(route.rows):,} rows; expected {rows:,}, as many as it was asked for"
    for row in route.rows:
        if not isinstance(row, Row):
            return f"gave a route with {came(row)} in it; expected Rows"
        if row.stream not in STREAMS:
            return f"gave a row of the stream {quoted(row.stream)}{hint(str(row.stream), STREAMS)}"
        if row.stream == "general" and row.effect is not None:
            return f"gave a row of the general stream with the effect {quoted(row.effect)}; expected None"
        if row.stream == "effect" and row.effect not in effects:
            return f"gave a row of the effect stream with {quoted(row.effect)}{hint(str(row.effect), effects)}"
    return None


def teachers_of(
    recipe: Recipe, rng: StepRng, effects: Sequence[str], update: int, owners: Owners | None = None
) -> tuple[str, ...]:
    """The different teachers that the student's batch of cycle `update` follows, in the order of its rows."""
    route = route_of(recipe, rng.at(first_step(recipe, update)), effects, owners)
    return tuple(dict.fromkeys(row.effect for row in route.rows if row.effect is not None))


#: rows of a run whose ways are looked at before it starts: twenty times the paper's 5,000
MOST_ROWS = 100_000


def foreseen(recipe: Recipe) -> range:
    """The cycles that are looked at before a run starts: all of them, or as many, evenly spread, as MOST_ROWS allow."""
    cycles, most = recipe.train.steps, max(1, MOST_ROWS // recipe.train.batch_size)
    return range(0, cycles, max(1, -(-cycles // most)))


def slots_problem(recipe: Recipe, rng: StepRng, effects: Sequence[str], owners: Owners | None = None) -> str | None:
    """A sentence where a batch of the run follows more teachers than there are slots, on the rank of `rng`.

    Of a run with more rows than MOST_ROWS, some batches are looked at.
    """
    slots = recipe.teacher.slots
    if slots is None or slots >= min(recipe.train.batch_size, len(effects)):
        return None
    most = max((len(teachers_of(recipe, rng, effects, n, owners)) for n in foreseen(recipe)), default=0)
    if most <= slots:
        return None
    return (
        f"{slots} are fewer than the {most} teachers that one batch follows (train.batch_size "
        f"{recipe.train.batch_size}, {len(effects)} effects); give {most}, or {2 * most} to load the next batch's "
        "while this one trains, or let the router give the whole batch one effect"
    )

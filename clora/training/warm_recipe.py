"""The recipe of a warm start alone: what decides it, what is wrong with it, what is doubtful."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from attrs import evolve

from clora.contracts.method import UsesSimulation
from clora.diffusion.rng import StepRng
from clora.planning.teacher_schedule import route_of
from clora.plugin_system.guard import Owners

if TYPE_CHECKING:
    from clora.config.schema import Recipe, WarmStart
    from clora.config.tree import Keypath

#: how many batches are looked at for rows that the warm start's losses read
LOOKED_AT = 64
#: a cycle costs as much as 5 (one critic update, no guidance) to 25 (the paper's) of a warm start's updates
MOST_PER_CYCLE = 10
#: the recipe's sections that are read once the warm start is over, or before any run
_AFTER = (
    "losses",
    "critic",
    "observers",
    "metrics",
    "serve",
    "export",
    "exporters",
    "evaluate",
    "captioner",
    "reporters",
)


def warm_recipe(recipe: Recipe, warm: WarmStart) -> Recipe:
    """The recipe of the warm start alone: its losses and router, the student's own shape, no critic, no average."""
    train = evolve(
        recipe.train,
        steps=warm.updates,
        lr=recipe.train.lr if warm.lr is None else warm.lr,
        betas=recipe.train.betas if warm.betas is None else warm.betas,
        decay=warm.decay,
        warmup_steps=min(recipe.train.warmup_steps, warm.updates),
    )
    return evolve(
        recipe,
        router=recipe.router if warm.router is None else warm.router,
        losses=warm.losses,
        critic=None,
        student=evolve(recipe.student, ema=None),
        train=train,
        warm_start=None,
    )


def decides(recipe: Recipe) -> Callable[[Keypath], bool]:
    """Whether the value at a path of the recipe has a say in its warm start; false of what only comes after it."""
    warm = recipe.warm_start
    if warm is None:
        return lambda path: False
    read = {loss.simulation for loss in warm.losses.values() if isinstance(loss, UsesSimulation)}
    others = {("train", key) for key in ("steps", "decay", "checkpoint_every", "keep_checkpoints")}
    others |= {("student", "ema"), ("warm_start", "critic"), *((section,) for section in _AFTER)}
    others |= {("simulations", name) for name in recipe.simulations if name not in read}
    others |= {("train", key) for key in ("lr", "betas") if getattr(warm, key) is not None}
    others |= {("router",)} if warm.router is not None else set()
    return lambda path: path[:1] not in others and path[:2] not in others


def warm_start_problems(recipe: Recipe, effects: tuple[str, ...], owners: Owners | None = None) -> Iterable[str]:
    """What keeps a recipe's warm start from teaching anything, a sentence each."""
    warm = recipe.warm_start
    if warm is None or recipe.serve.adapter != "student":
        return
    if not warm.losses:
        yield "it has no losses; add some under warm_start.losses, or remove it with `warm_start: null`"
        return
    if recipe.start is not None:
        yield "an extension starts from a finished LoRA already; remove one of the two"
    rank = recipe.student.rank if recipe.critic is None else recipe.critic.rank or recipe.student.rank
    if warm.critic and rank < recipe.student.rank:
        yield (
            f"its adapter of rank {recipe.student.rank} does not fit the critic's {rank}; raise critic.rank, or begin "
            "the critic as the bare base with warm_start.critic: false"
        )
    alone, rng = warm_recipe(recipe, warm), StepRng(recipe.seed)
    read = {stream for loss in warm.losses.values() for stream in loss.streams}
    if not any(
        row.stream in read
        for update in range(min(warm.updates, LOOKED_AT))
        for row in route_of(alone, rng.at(update), effects, owners).rows
    ):
        yield "its router gives no row that its losses read; give it rows of the effect stream under warm_start.router"


def warm_start_doubts(recipe: Recipe) -> Iterable[str]:
    """A sentence where the warm start is longer than the run itself; a run of no update exports it as it is."""
    warm = recipe.warm_start
    if warm is None or recipe.serve.adapter != "student":
        return
    if recipe.train.steps and warm.updates > MOST_PER_CYCLE * recipe.train.steps:
        yield (
            f"its {warm.updates} updates are longer than the run: more than {MOST_PER_CYCLE} for each of its "
            f"{recipe.train.steps} cycles (train.steps)"
        )

"""Numbers that are each within their bounds and make no sense together, or not on this recipe's backbone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from clora.contracts.backbone import trained_shapes
from clora.contracts.bounds import between
from clora.diffusion.rng import StepRng
from clora.errors import escaped
from clora.lora_io.header import LoraFileError, inspect_header
from clora.planning.teacher_schedule import first_step, foreseen, route_of
from clora.plugin_system.guard import Owners, sentences
from clora.runs.run_dir import RunDir
from clora.training.critics import critic_notes

if TYPE_CHECKING:
    from clora.config.schema import Recipe
    from clora.contracts.method import Loss
    from clora.contracts.values import EffectCard

#: strengths of a LoRA, alpha / rank or a teacher's scale: beyond, its product with a weight is lost in float16 or noise
STRENGTH = between(0.001, 1000.0)
#: losses, simulations or metrics of a recipe: each is asked in every update or for every picture
MOST_PARTS = 32
#: rows after which a stream that none of them is of will not come
FEWEST_ROWS = 256


def number_findings(recipe: Recipe) -> Iterable[tuple[str, str]]:
    """(place, sentence) of every rank, strength and number of parts that cannot be meant."""
    if recipe.losses:
        yield from _rank("student.rank", recipe.student.rank, trained_shapes(recipe.backbone))
        yield from _strength(recipe)
        yield from _narrower(recipe)
    if recipe.serve.adapter == "merge" and recipe.serve.merge is not None:
        asked = partial(recipe.serve.merge.shape_problems, recipe.backbone.shapes())
        yield from (("serve.merge", told) for told in sentences("shape_problems", asked))


def size_findings(recipe: Recipe) -> Iterable[tuple[str, str]]:
    """(place, sentence) of the sections that name more parts than any method has."""
    critic = recipe.critic.losses if recipe.critic else {}
    own = recipe.critic.own if recipe.critic else ()
    named = {"losses": recipe.losses, "simulations": recipe.simulations, "metrics": recipe.metrics}
    for place, parts in {**named, "critic.losses": critic, "critic.own": own}.items():
        if len(parts) > MOST_PARTS:
            yield place, f"at most {MOST_PARTS} of them can be used at once, found {len(parts)}"


def _rank(place: str, rank: int, shapes: Mapping[str, tuple[int, int]]) -> Iterable[tuple[str, str]]:
    """A rank that no linear can have: a product of factors has at most the smaller side's."""
    largest = max(shapes, key=lambda name: min(shapes[name]), default=None)
    if largest is not None and rank > min(shapes[largest]):
        inputs, outputs = shapes[largest]
        yield (
            place,
            f"{rank} is more than any linear of this backbone can have: the largest, {largest}, maps {inputs} numbers "
            f"to {outputs}, so at most {min(inputs, outputs)}",
        )


def _strength(recipe: Recipe) -> Iterable[tuple[str, str]]:
    """A student whose delta nothing is left of, or nothing but it, as float32 trains it and any type exports it."""
    strength = recipe.student.alpha / recipe.student.rank
    if not STRENGTH.low <= strength <= STRENGTH.high:
        yield (
            "student.alpha",
            f"the LoRA's strength, alpha / rank, must be {STRENGTH}; {recipe.student.alpha:g} / {recipe.student.rank} "
            f"is {strength:g}",
        )


def _narrower(recipe: Recipe) -> Iterable[tuple[str, str]]:
    """A student that the finished LoRA which it goes on from does not fit into."""
    if recipe.start is None:
        return
    try:
        tensors = inspect_header(RunDir(recipe.start.run).lora).tensors
    except LoraFileError:
        return  # told with the run, where it is still needed
    rank = max((tensor.shape[0] for name, tensor in tensors.items() if name.endswith("lora_A.weight")), default=0)
    if rank > recipe.student.rank:
        yield "student.rank", f"{recipe.student.rank} is less than the rank of the finished LoRA, {rank}"


def teacher_strengths(cards: Sequence[EffectCard]) -> Iterable[str]:
    """Teachers whose strength, the bank's times their own, is next to nothing or drowns the base."""
    for card in cards:
        if not STRENGTH.low <= abs(card.scale) <= STRENGTH.high:
            found = f"its scale, the bank's included, is {card.scale:g}"
            yield f"{escaped(card.name)}: {found}; it must be {STRENGTH}, or as far below 0"


def unfed_losses(recipe: Recipe, effects: Sequence[str], owners: Owners | None = None) -> Iterable[tuple[str, str]]:
    """A student that would never train: the router sends no row to a stream that any of its losses reads.

    As many rows are looked at as `foreseen` says; of a short run some that would follow it too, for other ranks draw
    others.
    """
    if not recipe.losses or not recipe.train.steps:
        return
    rng = StepRng(recipe.seed)
    wanted = {stream for loss in recipe.losses.values() for stream in loss.streams}
    drawn: set[str] = set()
    beyond = range(recipe.train.steps, recipe.train.steps + FEWEST_ROWS // recipe.train.batch_size)
    for update in (*foreseen(recipe), *beyond):
        rows = route_of(recipe, rng.at(first_step(recipe, update)), effects, owners).rows
        drawn |= {row.stream for row in rows}
        if drawn & wanted:
            return
    yield (
        "router",
        f"it sends every row to the stream {', '.join(sorted(drawn))}, which no loss reads: nothing would be trained",
    )


def notes(recipe: Recipe) -> Iterable[str]:
    """What is allowed and probably not meant, in a sentence each."""
    train = recipe.train
    if not recipe.losses:
        return
    if not train.steps:
        yield "train.steps: 0 trains nothing; the student is exported as it begins"
    elif train.warmup_steps > train.steps:
        yield (
            f"train.warmup_steps {train.warmup_steps:,} is more than train.steps {train.steps:,}: the learning rate "
            "never reaches train.lr"
        )
    yield from critic_notes(recipe)
    yield from (f"losses.{name}: its weight is 0, so it trains nothing" for name in _weightless(recipe.losses))


def _weightless(losses: Mapping[str, Loss]) -> list[str]:
    return [name for name, loss in losses.items() if loss.weight == 0]

"""Recipe -> Plan: all that can fail early fails here, all at once, before any model is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from clora.errors import CloraError
from clora.lora_files.check import check_lora
from clora.protocols import Checked, ChecksCards
from clora.values import EffectCard, Prompts

if TYPE_CHECKING:
    from clora.recipe.load import LoadedRecipe
    from clora.recipe.schema import Recipe


@frozen
class Plan:
    """A recipe that has been checked: its effects with their words, and the hash of all that decides its outcome."""

    recipe: Recipe
    digest: str
    text: str  # the resolved recipe as YAML
    cards: tuple[EffectCard, ...]
    prompts: Mapping[str, Prompts]


def make_plan(loaded: LoadedRecipe) -> Plan:
    """Check everything that needs no model and return the plan.

    Raises CloraError with every problem found, one a line.
    """
    recipe = loaded.recipe
    problems = [f"{label}: {sentence}" for label, part in components(recipe) for sentence in _checked(part)]
    cards: tuple[EffectCard, ...] = ()
    if not problems:
        cards = _chosen(recipe, tuple(recipe.teachers.cards()), problems)
        problems += _words(recipe, cards)
        problems += _pictures(recipe, cards)
        problems += _files(recipe, cards)
    if problems:
        raise CloraError("\n".join(problems))
    prompts = {card.name: recipe.prompts.effect(card) for card in cards}
    return Plan(recipe, loaded.digest, loaded.resolved_yaml(), cards, prompts)


def components(recipe: Recipe) -> list[tuple[str, Any]]:
    """Every component of a recipe with its place, such as `losses.bs_dmd`."""
    single = {
        "backbone": recipe.backbone,
        "dataset": recipe.dataset,
        "teachers": recipe.teachers,
        "router": recipe.router,
        "prompts": recipe.prompts,
        "kernels": recipe.kernels,
    }
    groups = {"simulations": recipe.simulations, "losses": recipe.losses, "metrics": recipe.metrics}
    if recipe.critic is not None:
        groups["critic.losses"] = recipe.critic.losses
    found = [(place, part) for place, part in single.items() if part is not None]
    return found + [(f"{place}.{name}", part) for place, group in groups.items() for name, part in group.items()]


def _checked(part: Any) -> Iterable[str]:
    return part.check() if isinstance(part, Checked) else ()


def _chosen(recipe: Recipe, cards: tuple[EffectCard, ...], problems: list[str]) -> tuple[EffectCard, ...]:
    """The bank's effects that `effects:` names, in its order; unknown names go to `problems`."""
    if recipe.effects is None:
        return cards
    by_name = {card.name: card for card in cards}
    for name in recipe.effects:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; the bank has {', '.join(by_name)}"
            problems.append(f"effects: the bank has no effect {name!r}{hint}")
    return tuple(by_name[name] for name in recipe.effects if name in by_name)


def _words(recipe: Recipe, cards: tuple[EffectCard, ...]) -> Iterable[str]:
    if isinstance(recipe.prompts, ChecksCards):
        yield from (f"prompts: {sentence}" for sentence in recipe.prompts.check_cards(cards))


def _pictures(recipe: Recipe, cards: tuple[EffectCard, ...]) -> Iterable[str]:
    """Effects without pictures, an empty general stream."""
    for card in cards:
        try:
            for split in ("train", "test"):
                if not recipe.dataset.sources(card.name, split):
                    yield f"dataset: no {split} pictures for the effect {card.name}"
        except ValueError as error:
            yield f"dataset: {error}"
    if not recipe.dataset.general("train"):
        yield "dataset: the general stream has no pictures"


def _files(recipe: Recipe, cards: tuple[EffectCard, ...]) -> Iterable[str]:
    """Teacher files that do not fit the backbone or hold numbers that are not finite."""
    shapes = recipe.backbone.shapes()
    for card in cards:
        yield from (f"teachers: {card.name}: {sentence}" for sentence in check_lora(card.lora, shapes, data=True))

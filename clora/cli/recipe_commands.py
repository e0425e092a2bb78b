"""What a plugin's command on a recipe needs: the recipe of its arguments, its effects, mistakes told at their lines."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from clora.cli.recipes import loaded
from clora.errors import CloraError

if TYPE_CHECKING:
    from clora.config.load import LoadedRecipe
    from clora.contracts.values import EffectCard


def recipe_of(args: argparse.Namespace) -> LoadedRecipe:
    """The recipe of `add_recipe_arguments`; its `recipe` has the sections. Raises CloraError with every mistake."""
    recipe, _ = loaded(args)
    return recipe


def cards_of(recipe: LoadedRecipe, places: Collection[str]) -> tuple[tuple[EffectCard, ...], list[tuple[str, str]]]:
    """The effects of a recipe, and (place, sentence) of every mistake in the components at `places` and the effects."""
    from clora.planning.plan import checked_cards

    return checked_cards(recipe.recipe, places)


def recipe_error(recipe: LoadedRecipe, findings: Iterable[tuple[str, str]]) -> CloraError:
    """The error that tells each (place, sentence) at its line of the recipe; a place is such as `losses.opd`."""
    from clora.config.problems import Problem, RecipeError

    return RecipeError(
        Problem(recipe.mark_of(place), f"{place}: {sentence}" if place else sentence) for place, sentence in findings
    )

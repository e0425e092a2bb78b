"""What is wrong or doubtful with a recipe's optimizer, and the state it keeps, before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from clora.config.schema import Train
from clora.contracts.optimizer import WorksOn
from clora.plugin_system.guard import came

if TYPE_CHECKING:
    from clora.config.schema import Recipe
    from clora.plugin_system.guard import Owners

#: numbers of state that AdamW keeps for a weight: its two moments
ADAMW = 2.0


def works_on_matrices(recipe: Recipe) -> bool:
    """True where the recipe's optimizer needs the adapter's matrices."""
    return recipe.optimizer is not None and recipe.optimizer.works_on == "matrices"


def state_per_weight(recipe: Recipe) -> float:
    """How many numbers of state the optimizer keeps for a weight."""
    return ADAMW if recipe.optimizer is None else recipe.optimizer.state_per_weight()


def optimizer_findings(recipe: Recipe, owners: Owners) -> Iterator[tuple[str, str]]:
    """(place, sentence) for what an optimizer says of itself and cannot be, and for an offload that it cannot have.

    Raises ComponentError where it raises.
    """
    if recipe.optimizer is None:
        return
    with owners.calling("optimizer"):
        works_on, kept = recipe.optimizer.works_on, recipe.optimizer.state_per_weight()
    if works_on not in get_args(WorksOn):
        yield "optimizer", f"its works_on is {came(works_on)}; expected 'weights' or 'matrices'"
    if isinstance(kept, bool) or not isinstance(kept, int | float) or not math.isfinite(kept) or kept < 0:
        yield "optimizer", f"its state_per_weight() gave {came(kept)}; expected a number from 0 on"
    if works_on == "matrices" and recipe.train.offload_optimizer:
        yield (
            "train.offload_optimizer",
            "the recipe's optimizer works on the matrices where they lie, on the device; say false, or take an "
            "optimizer that works on weights, such as adamw",
        )


def optimizer_doubts(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(place, sentence) for keys of the default AdamW that are set and that the recipe's optimizer never reads."""
    if recipe.optimizer is None:
        return
    warm = recipe.warm_start
    unread = {
        "train.betas": recipe.train.betas != Train().betas,
        "train.weight_decay": recipe.train.weight_decay != Train().weight_decay,
        "warm_start.betas": warm is not None and warm.betas is not None,
    }
    for place in (place for place, said in unread.items() if said):
        yield place, "nobody reads it: `optimizer` has keys of its own"

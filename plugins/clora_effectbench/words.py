"""What the metrics say of their numbers."""

from __future__ import annotations

from collections.abc import Mapping

from clora.api import Quantity

#: what the confusion matrices hold
NEAREST = "Of the pictures for which a row's effect was asked, how many came nearest to each column's."


def described(
    quantities: Mapping[str, Quantity], values: Mapping[str, float], per_effect: Mapping[str, Mapping[str, float]]
) -> dict[str, Quantity]:
    """What is said of those numbers that an evaluation has given, in the order in which it is said."""
    given = set(values).union(*per_effect.values())
    return {name: quantity for name, quantity in quantities.items() if name in given}

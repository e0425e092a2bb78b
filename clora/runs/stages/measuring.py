"""Asks a recipe's metrics, and refuses by name what is no finding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, get_args

from attrs import evolve

from clora.contracts.evaluation import Direction, Measured, Quantity
from clora.errors import hint, quoted
from clora.plugin_system.guard import came

if TYPE_CHECKING:
    from clora.contracts.evaluation import Evaluation
    from clora.planning.plan import Plan
    from clora.runs.files.results import Results


def measure(plan: Plan, evaluation: Evaluation, results: Results, tell: Callable[[str], None]) -> Results:
    """The results with what every metric finds; numbers that one could not give are told.

    A metric whose values another has given already, such as the second of one kind, has its names after its key in the
    recipe. Raises ComponentError for a metric that raises or gives no Measured.
    """
    for key, metric in plan.recipe.metrics.items():
        place = f"metrics.{key}"
        with plan.owners.calling(place):
            found = metric.measure(evaluation)
        problem = measured_problem(found)
        if problem is not None:
            raise plan.owners.error(place, problem)
        if found.values.keys() & results.values.keys() or found.matrices.keys() & results.matrices.keys():
            found = named_after(key, found)
        for name in (name for name, value in found.values.items() if not math.isfinite(value)):
            tell(f"{place}: {name} is not a finite number")
        results = results.with_measured(found)
    return results


def measured_problem(found: object) -> str | None:
    """What is wrong with what a metric gave."""
    if not isinstance(found, Measured):
        return f"gave {came(found)}; expected a Measured"
    tables = {"values": found.values, **{f"per_effect of {e}": row for e, row in found.per_effect.items()}}
    for table, row in tables.items():
        if not isinstance(row, Mapping):
            return f"gave {came(row)} as its {table}; expected a mapping of names to numbers"
        for name, value in row.items():
            if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, (int, float)):
                return f"gave {quoted(name)} in its {table} as {came(value)}; expected a number (float(...))"
    if not isinstance(found.summary, str) or "\n" in found.summary:
        return f"gave {came(found.summary)} as its summary; expected one line of text"
    return _quantities_problem(found)


def _quantities_problem(found: Measured) -> str | None:
    """What is wrong with what a metric says of its numbers."""
    names = set(found.values).union(*found.per_effect.values())
    for name, quantity in found.quantities.items():
        if name not in names:
            return f"describes {quoted(name)}, which is none of its numbers{hint(name, names)}"
        if not isinstance(quantity, Quantity):
            return f"describes {quoted(name)} as {came(quantity)}; expected a Quantity"
        if quantity.better not in (None, *get_args(Direction)):
            return f"says of {quoted(name)} that {quoted(quantity.better)} is better; expected lower, higher or None"
        if quantity.reference is not None and quantity.reference.of not in names:
            return f"sees {quoted(name)} beside {quoted(quantity.reference.of)}, which is none of its numbers"
    return None


def named_after(key: str, found: Measured) -> Measured:
    """The same findings with `key.` before the name of every one."""

    def named(row: Mapping) -> dict:
        return {f"{key}.{name}": value for name, value in row.items()}

    return evolve(
        found,
        values=named(found.values),
        quantities=named({name: _beside(key, quantity) for name, quantity in found.quantities.items()}),
        per_effect={effect: named(row) for effect, row in found.per_effect.items()},
        per_picture={effect: named(row) for effect, row in found.per_picture.items()},
        matrices=named(found.matrices),
    )


def _beside(key: str, quantity: Quantity) -> Quantity:
    """What is said of a number, beside the one that has `key.` before its name."""
    if quantity.reference is None:
        return quantity
    return evolve(quantity, reference=evolve(quantity.reference, of=f"{key}.{quantity.reference.of}"))

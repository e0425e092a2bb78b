"""Asks a recipe's metrics, and refuses by name what is no finding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, get_args

from attrs import evolve

from clora.contracts.evaluation import Direction, Measured, PictureGrid, Quantity
from clora.errors import hint, quoted
from clora.plugin_system.guard import came

if TYPE_CHECKING:
    import torch

    from clora.contracts.evaluation import Evaluation
    from clora.planning.plan import Plan
    from clora.runs.files.results import Results


def measure(
    plan: Plan, evaluation: Evaluation, results: Results, tell: Callable[[str], None]
) -> tuple[Results, dict[str, torch.Tensor]]:
    """The results with what every metric finds, and the pictures that metrics show; numbers not given are told.

    A metric whose values another has given already, such as the second of one kind, has its names after its key in the
    recipe. Raises ComponentError for a metric that raises or gives no Measured.
    """
    pictures: dict[str, torch.Tensor] = {}
    for key, metric in plan.recipe.metrics.items():
        place = f"metrics.{key}"
        with plan.owners.calling(place):
            found = metric.measure(evaluation)
        problem = measured_problem(found)
        if problem is not None:
            raise plan.owners.error(place, problem)
        if any(
            mine.keys() & theirs.keys()
            for mine, theirs in (
                (found.values, results.values),
                (found.matrices, results.matrices),
                (found.grids, results.grids),
            )
        ):
            found = named_after(key, found)
        for name in (name for name, value in found.values.items() if not math.isfinite(value)):
            tell(f"{place}: {name} is not a finite number")
        results = results.with_measured(found)
        for name, grid in found.grids.items():
            pictures |= {f"{name}.{i}": row for i, row in enumerate(grid.rows.values())}
    return results, pictures


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
    return _quantities_problem(found) or _grids_problem(found.grids)


def _grids_problem(grids: Mapping[str, PictureGrid]) -> str | None:
    """What is wrong with the pictures that a metric shows."""
    for name, grid in grids.items():
        if not isinstance(name, str) or not isinstance(grid, PictureGrid):
            return f"gave {quoted(name)} as {came(grid)}; expected a PictureGrid"
        shapes = {row: tuple(getattr(pictures, "shape", ())) for row, pictures in grid.rows.items()}
        for row, shape in shapes.items():
            if len(shape) != 4 or shape[:2] != (len(grid.subjects), 3) or shape != next(iter(shapes.values())):
                wanted = f"[{len(grid.subjects)}, 3, H, W], a picture for each subject and all rows alike"
                return f"gave the row {quoted(row)} of {quoted(name)} as {came(grid.rows[row])}; expected {wanted}"
    return None


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
        grids=named(found.grids),
    )


def _beside(key: str, quantity: Quantity) -> Quantity:
    """What is said of a number, beside the one that has `key.` before its name."""
    if quantity.reference is None:
        return quantity
    return evolve(quantity, reference=evolve(quantity.reference, of=f"{key}.{quantity.reference.of}"))

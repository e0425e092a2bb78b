"""`evaluate/results.json`: an evaluation's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import asdict, evolve, field, frozen

from clora.contracts.evaluation import Direction, Matrix, Measured, PictureGrid, Quantity, Reference
from clora.runs.files.checksums import DamagedError
from clora.runs.files.fields import Fields, finite

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_BETTER: tuple[Direction | None, ...] = (None, "lower", "higher")


@frozen
class GridNames:
    """A metric's pictures but for the pixels, which are tensors `NAME.ROW-NUMBER` of a file beside this one."""

    subjects: tuple[str, ...]
    rows: tuple[str, ...]
    note: str

    def grid(self, name: str, pictures: Mapping[str, torch.Tensor]) -> PictureGrid:
        """The pictures with their names."""
        rows = {row: pictures[f"{name}.{i}"] for i, row in enumerate(self.rows)}
        return PictureGrid(self.subjects, rows, self.note)


@frozen
class Results:
    """What the metrics of a run found. A number that a metric could not give is NaN, in the file null."""

    nfe: str = ""  # network evaluations per picture, such as "4" or "40x2"
    values: Mapping[str, float] = field(factory=dict)  # metric -> its number over all pictures
    quantities: Mapping[str, Quantity] = field(factory=dict)  # what is said of the numbers by name
    per_effect: Mapping[str, Mapping[str, float]] = field(factory=dict)  # effect -> metric -> number
    #: effect -> metric -> one number for each test picture
    per_picture: Mapping[str, Mapping[str, tuple[float, ...]]] = field(factory=dict)
    matrices: Mapping[str, Matrix] = field(factory=dict)  # title -> table
    #: effect -> its test pictures
    pictures: Mapping[str, tuple[str, ...]] = field(factory=dict)
    grids: Mapping[str, GridNames] = field(factory=dict)  # title -> pictures
    #: what the metrics say in words, in their order
    summaries: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Fields) -> Results:
        """From the file's map. Raises DamagedError for a field that is missing or of another type."""
        return cls(
            nfe=fields.text("nfe"),
            values=fields.numbers("values"),
            quantities=fields.map("quantities").map_of(_quantity),
            per_effect=fields.map("per_effect").map_of(Fields.numbers),
            per_picture=fields.map("per_picture").map_of(lambda per, key: per.map(key).map_of(Fields.row)),
            matrices=fields.map("matrices").map_of(_matrix),
            pictures=fields.map("pictures").map_of(Fields.texts),
            grids=fields.map("grids").map_of(_grid),
            summaries=fields.texts("summaries"),
        )

    @property
    def better(self) -> dict[str, Direction]:
        """The direction in which a number is better, of those that have one."""
        return {name: q.better for name, q in self.quantities.items() if q.better is not None}

    def with_measured(self, found: Measured) -> Results:
        """With what a metric found beside what others have."""

        def both(mine: Mapping[str, Mapping[str, T]], more: Mapping[str, Mapping[str, T]]) -> dict[str, dict[str, T]]:
            return {name: {**mine.get(name, {}), **more.get(name, {})} for name in {**mine, **more}}

        rows = {name: {key: tuple(row) for key, row in scores.items()} for name, scores in found.per_picture.items()}
        return evolve(
            self,
            values={**self.values, **found.values},
            quantities={**self.quantities, **found.quantities},
            per_effect=both(self.per_effect, found.per_effect),
            per_picture=both(self.per_picture, rows),
            matrices={**self.matrices, **found.matrices},
            grids={**self.grids, **{n: GridNames(g.subjects, tuple(g.rows), g.note) for n, g in found.grids.items()}},
            summaries=(*self.summaries, *([found.summary] if found.summary else ())),
        )

    def measured(self, pictures: Mapping[str, torch.Tensor] | None = None) -> Measured:
        """The same as one metric's findings, with the first metric's words; without `pictures`, without grids."""
        grids = {} if pictures is None else {name: names.grid(name, pictures) for name, names in self.grids.items()}
        summary = next(iter(self.summaries), "")
        tables = (self.per_effect, self.per_picture, self.matrices)
        return Measured(self.values, self.quantities, *tables, grids, summary)

    def tree(self) -> dict[str, Any]:
        """As the file holds it, and as `clora_run_finished` is told."""
        return finite(asdict(self))


def _quantity(fields: Fields, key: str) -> Quantity:
    found = fields.map(key)
    better, reference = found.choice("better", _BETTER), found.optional("reference", _reference)
    return Quantity(better, found.text("unit"), found.flag("headline"), reference)


def _grid(fields: Fields, key: str) -> GridNames:
    found = fields.map(key)
    return GridNames(found.texts("subjects"), found.texts("rows"), found.text("note"))


def _reference(fields: Fields, key: str) -> Reference:
    found = fields.map(key)
    return Reference(found.text("who"), found.text("of"))


def _matrix(fields: Fields, key: str) -> Matrix:
    matrix = fields.map(key)
    rows, columns, values = matrix.texts("rows"), matrix.texts("columns"), matrix.list("values")
    table = Fields({f"values, row {i + 1}": row for i, row in enumerate(values)}, matrix.where)
    found = tuple(table.row(name) for name in table.tree)
    if len(found) != len(rows) or any(len(row) != len(columns) for row in found):
        raise DamagedError(f"{matrix.where} is damaged: its table has not a row for each of its names")
    return Matrix(rows, columns, found, matrix.text("note"), matrix.text("unit"), matrix.flag("confusion"))

"""Several evaluated runs as one table: a row per recipe, mean and spread over its seeds (as Tables 1 and 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from attrs import frozen

from clora.api import CloraError, Direction, RunDir, hint, quoted, shown as shown_path


@frozen
class EvaluatedRun:
    """What one run folder says of itself and of its evaluation."""

    folder: Path
    name: str
    title: str
    seed: int
    digest: str | None
    steps: int | None
    seconds: float | None
    nfe: str | None  # network evaluations per picture, such as "4" or "40x2"
    values: Mapping[str, float]
    better: Mapping[str, Direction]  # a value that is not named has no direction


@frozen
class Cell:
    """One value over a row's seeds: mean, sample standard deviation (None for one seed) and how many seeds had it."""

    mean: float
    sd: float | None
    n: int


@frozen
class Row:
    """The runs of one recipe, which differ in their seeds only."""

    name: str
    title: str
    runs: tuple[EvaluatedRun, ...]
    cells: Mapping[str, Cell]  # columns that no seed has are absent

    @property
    def nfe(self) -> str | None:
        """Network evaluations per picture, the same in all runs of a row."""
        return self.runs[0].nfe


@frozen
class Comparison:
    """The whole table; `columns` keeps the order in which values were first met."""

    columns: tuple[str, ...]
    better: Mapping[str, Direction]
    rows: tuple[Row, ...]

    def best(self, column: str) -> float | None:
        """The best mean of a column; None where it has no direction, or no two rows to compare."""
        means = [row.cells[column].mean for row in self.rows if column in row.cells]
        if len(means) < 2 or column not in self.better:
            return None
        return min(means) if self.better[column] == "lower" else max(means)

    def sorted_by(self, column: str) -> Comparison:
        """The same table with the best row of a column first; rows without that value keep their order at the end.

        A column without a direction begins with its largest value.
        """
        sign = 1 if self.better.get(column) == "lower" else -1
        rows = sorted(self.rows, key=lambda row: sign * row.cells[column].mean if column in row.cells else math.inf)
        return Comparison(self.columns, self.better, tuple(rows))


def compare(runs: Sequence[EvaluatedRun], columns: Sequence[str] | None = None, by: str | None = None) -> Comparison:
    """Group runs by name, in the order given, into a table of all columns or those asked for, sorted by one if asked.

    Raises CloraError for an unknown column, and for runs of one name that are not seeds of one recipe.
    """
    known = tuple(dict.fromkeys(column for run in runs for column in run.values))
    wanted = dict.fromkeys([*(columns or ()), *([by] if by else ())])
    problems = [f"no run has the value {quoted(name)}{hint(name, known)}" for name in wanted if name not in known]
    groups: dict[str, list[EvaluatedRun]] = {}
    for run in runs:
        problems += _clash(run, groups.setdefault(run.name, []))
        groups[run.name].append(run)
    if problems:
        raise CloraError("\n".join(problems))
    shown = tuple(dict.fromkeys(columns)) if columns else known
    better: dict[str, Direction] = {column: direction for run in runs for column, direction in run.better.items()}
    # `by` may name a column that is not shown, so the rows know all values while they are sorted.
    table = Comparison(known, better, tuple(_row(group) for group in groups.values()))
    return Comparison(shown, better, (table.sorted_by(by) if by else table).rows)


def _clash(run: EvaluatedRun, others: Sequence[EvaluatedRun]) -> list[str]:
    """Why a run cannot share a row with those before it; a mean over unlike runs would be a number of nothing."""
    for other in others:
        if other.seed == run.seed:
            same = f"the same name {quoted(run.name)} and seed {run.seed} as {shown_path(other.folder)}"
            return [f"{shown_path(run.folder)}: has {same}, which was given before; leave one out"]
        shared = {"updates": (run.steps, other.steps), "evaluations per picture": (run.nfe, other.nfe)}
        for what, (mine, theirs) in shared.items():
            if mine != theirs:
                alike = f"is called {quoted(run.name)} like {shown_path(other.folder)}"
                unlike = f"but has {mine} {what} against {theirs}"
                return [f"{shown_path(run.folder)}: {alike}, {unlike}; only the seeds may differ within one name"]
    return []


def _row(runs: Sequence[EvaluatedRun]) -> Row:
    cells: dict[str, Cell] = {}
    for column in dict.fromkeys(column for run in runs for column in run.values):
        found = [run.values[column] for run in runs if column in run.values]
        cells[column] = Cell(fmean(found), stdev(found) if len(found) > 1 else None, len(found))
    title = next((run.title for run in runs if run.title), "")
    return Row(runs[0].name, title, tuple(runs), cells)


def read_runs(folders: Sequence[Path]) -> list[EvaluatedRun]:
    """Read run folders in the order given.

    Raises CloraError with the problems of all folders: no run, not evaluated yet, damaged JSON, a value no number.
    """
    runs: list[EvaluatedRun] = []
    problems: list[str] = []
    for folder in folders:
        try:
            runs.append(_read_run(folder))
        except CloraError as error:
            problems.append(str(error))
    if problems:
        raise CloraError("\n".join(problems))
    return runs


def _read_run(folder: Path) -> EvaluatedRun:
    if not folder.is_dir():
        why = "it is a file" if folder.exists() else "there is no such folder"
        raise CloraError(f"{shown_path(folder)} is not a run folder: {why}")
    run = RunDir(folder)
    info, found = run.info(), run.read_results()
    return EvaluatedRun(
        folder=folder,
        name=info.name,
        title=info.title,
        seed=info.seed,
        digest=info.digest,
        steps=info.steps,
        seconds=info.seconds,
        nfe=found.nfe,
        # what a metric could not give is shown as missing
        values={name: value for name, value in found.values.items() if math.isfinite(value)},
        better={name: found.better[name] for name in found.values if name in found.better},
    )

"""`clora compare RUN...`: the table of several runs as text, Markdown or JSON."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict

from clora_studies.comparison import Cell, Comparison, Row, compare, read_runs

MISSING = "–"
ARROWS = {"lower": "↓", "higher": "↑"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="evaluated runs' folders, a row each")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table, best values in bold")
    form.add_argument("--json", action="store_true", help="print everything as JSON, with every run's own values")
    parser.add_argument("--columns", metavar="A,B", help="show only these values, in this order")
    parser.add_argument("--by", metavar="NAME", help="sort the rows by this value, best first")


def run(args: argparse.Namespace) -> int:
    """Print the table; CloraError with all problems if a folder is no evaluated run."""
    columns = [name.strip() for name in args.columns.split(",") if name.strip()] if args.columns else None
    comparison = compare(read_runs(args.runs), columns, args.by)
    if args.json:
        print(json.dumps(as_json(comparison), indent=2))
    else:
        print(as_markdown(comparison) if args.markdown else as_text(comparison))
    return 0


def as_text(comparison: Comparison) -> str:
    """An aligned table with * at the best value of every column."""
    # Where there is no star its place is kept, so that digits stand under digits.
    table = _cells(comparison, lambda text, best: text + ("*" if best else " "))
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in table
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines + _notes(comparison, "* best"))


def as_markdown(comparison: Comparison) -> str:
    """A Markdown table with the best value of every column in bold."""
    table = _cells(comparison, lambda text, best: f"**{text}**" if best else text)
    table = [[cell.replace("|", "\\|") for cell in line] for line in table]
    rule = ["---", *("---:" for _ in table[0][1:])]
    lines = [f"| {' | '.join(line)} |" for line in (table[0], rule, *table[1:])]
    notes = _notes(comparison, "**bold**: best")
    return "\n".join(lines + (["", *notes[1:]] if notes else []))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The table with means, sample standard deviations, seeds and every run's own values."""
    return {
        "columns": [
            {"name": name, "better": comparison.better.get(name), "best": comparison.best(name)}
            for name in comparison.columns
        ],
        "rows": [_row_json(row, comparison.columns) for row in comparison.rows],
    }


def _row_json(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "nfe": row.nfe,
        "n": len(row.runs),
        "seeds": [run.seed for run in row.runs],
        "values": {name: asdict(row.cells[name]) if name in row.cells else None for name in columns},
        "runs": [
            {
                "folder": str(run.folder),
                "seed": run.seed,
                "digest": run.digest,
                "steps": run.steps,
                "seconds": run.seconds,
                "nfe": run.nfe,
                "values": {name: run.values.get(name) for name in columns},
            }
            for run in row.runs
        ],
    }


def _cells(comparison: Comparison, mark: Callable[[str, bool], str]) -> list[list[str]]:
    """Header and rows as text: name, values with their direction, evaluations per picture, number of seeds."""
    arrows = {name: f" {ARROWS[direction]}" for name, direction in comparison.better.items()}
    table = [["run", *(mark(f"{name}{arrows.get(name, '')}", False) for name in comparison.columns), "NFE", "n"]]
    several = any(len(row.runs) > 1 for row in comparison.rows)
    for row in comparison.rows:
        values = [mark(*_value(comparison, row, name)) for name in comparison.columns]
        table.append([" ".join((row.title or row.name).split()), *values, row.nfe or MISSING, str(len(row.runs))])
    return table if several else [line[:-1] for line in table]


def _value(comparison: Comparison, row: Row, column: str) -> tuple[str, bool]:
    """A cell's text and whether it is the column's best, as far as the digits shown can tell."""
    if column not in row.cells:
        return MISSING, False
    cell, digits, best = row.cells[column], _digits(comparison, column), comparison.best(column)
    return _text(cell, digits, len(row.runs)), best is not None and f"{cell.mean:.{digits}f}" == f"{best:.{digits}f}"


def _text(cell: Cell, digits: int, seeds: int) -> str:
    text = f"{cell.mean:.{digits}f}"
    if cell.sd is not None:
        text += f" ± {cell.sd:.{digits}f}"
    return text if cell.n == seeds else f"{text} (n={cell.n})"


def _digits(comparison: Comparison, column: str) -> int:
    """Decimals of a column: three significant digits of its largest mean, two to six decimals."""
    largest = max(abs(row.cells[column].mean) for row in comparison.rows if column in row.cells)
    return 3 if largest == 0 else min(6, max(2, 2 - math.floor(math.log10(largest))))


def _notes(comparison: Comparison, best: str) -> list[str]:
    """A line under the table that explains its marks, after an empty one; nothing if there are no marks."""
    notes = [best] if any(comparison.best(name) is not None for name in comparison.columns) else []
    if any(cell.sd is not None for row in comparison.rows for cell in row.cells.values()):
        notes.append("mean ± sample standard deviation over n seeds")
    return ["", "; ".join(notes)] if notes else []

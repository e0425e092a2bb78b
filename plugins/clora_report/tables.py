"""The numbers of a report: headline, results with their references, effects one by one, and heat tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clora_report.html import Markup, element, join
from clora_report.numbers import SHARE, label, shown, split_references

if TYPE_CHECKING:
    from clora.api import Matrix, Measured

_HEADLINES = 4
_WIDE = 24  # columns from which on a heat table's cells are small, so that fifty effects fit a screen


def headline(measured: Measured) -> Markup:
    """The first four headlines (values, where there are none) in large type, each with what it is measured against."""
    own, references = split_references(measured)
    chosen = [name for name, quantity in measured.quantities.items() if quantity.headline and name in own] or list(own)
    tiles = []
    for name in chosen[:_HEADLINES]:
        unit = measured.quantity(name).unit
        beside = ", ".join(f"{who} {shown(row[name], unit)}" for who, row in references.items() if name in row)
        tiles.append(
            element(
                "div",
                element("dt", label(name), " ", _direction(measured, name)),
                element("dd", element("strong", shown(own[name], unit)), element("span", beside, class_="beside")),
            )
        )
    return element("dl", *tiles, class_="headline")


def results(measured: Measured, title: str) -> Markup:
    """All values of the run in one row, reference rows below."""
    own, references = split_references(measured)
    rows = {title: own, **{f"{who} (reference)": row for who, row in references.items()}}
    head = [_column(label(name), _direction(measured, name)) for name in own]
    body = [
        element("tr", element("th", who, scope="row"), *(_number(measured, name, row.get(name)) for name in own))
        for who, row in rows.items()
    ]
    return _table("Results", [element("td"), *head], body, "results")


def by_effect(measured: Measured, anchors: Mapping[str, str]) -> Markup:
    """The same numbers of every effect alone; shares are drawn as bars behind their number."""
    names = list(dict.fromkeys(name for row in measured.per_effect.values() for name in row))
    body = []
    for effect, row in measured.per_effect.items():
        link = element("a", effect, href=f"#{anchors[effect]}") if effect in anchors else effect
        body.append(
            element("tr", element("th", link, scope="row"), *(_share(measured, name, row.get(name)) for name in names))
        )
    head = [_column(label(name), _direction(measured, name)) for name in names]
    return _table("Every effect alone", [element("th", "effect", scope="col", class_="first"), *head], body)


def matrix(name: str, matrix: Matrix) -> Markup:
    """A metric's table with its sentence."""
    note = element("p", matrix.note, class_="muted") if matrix.note else ""
    return join([note, _heat(name, matrix) if matrix.confusion else _plain(name, matrix)])


def _plain(name: str, matrix: Matrix) -> Markup:
    head = [element("td"), *(element("th", column, scope="col") for column in matrix.columns)]
    body = [
        element("tr", element("th", row, scope="row"), *(element("td", shown(value, matrix.unit)) for value in values))
        for row, values in zip(matrix.rows, matrix.values, strict=True)
    ]
    return _table(label(name).capitalize(), head, body)


def _heat(name: str, matrix: Matrix) -> Markup:
    """A matrix of shares as a heat table: blue where row and column agree, orange where they do not."""
    head = [element("th", element("span", "asked ↓ / came →"), scope="col", class_="corner")]
    head += [element("th", element("span", column), scope="col") for column in matrix.columns]
    body = []
    for row, values in zip(matrix.rows, matrix.values, strict=True):
        cells = [_heat_cell(value, row, column) for column, value in zip(matrix.columns, values, strict=True)]
        body.append(element("tr", element("th", row, scope="row"), *cells))
    return _table(
        f"{label(name).capitalize()}, per cent of each row",
        head,
        body,
        "heat dense" if len(matrix.columns) > _WIDE else "heat",
    )


def pairs(caption: str, rows: Mapping[str, str]) -> Markup:
    """A table of names and values."""
    body = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows.items()]
    return _table(caption, [], body, "pairs")


def _heat_cell(value: float, row: str, column: str) -> Markup:
    right = row == column
    share = min(1.0, max(0.0, value))
    if share < 0.005 and not right:  # a long row of zeros would hide the few numbers that matter
        return element("td", "·", class_="none")
    kind = ("right" if right else "wrong") + (" deep" if share >= 0.5 else "")
    told = f"{row} → {column}: {shown(value, SHARE)}"
    return element("td", f"{share * 100:.0f}", class_=kind, style=f"--v:{share:.3f}", title=told)


def _number(measured: Measured, name: str, value: float | None) -> Markup:
    return element("td", shown(value, measured.quantity(name).unit))


def _share(measured: Measured, name: str, value: float | None) -> Markup:
    if value is None or not math.isfinite(value) or measured.quantity(name).unit != SHARE:
        return _number(measured, name, value)
    return element("td", shown(value, SHARE), class_="bar", style=f"--v:{min(1.0, max(0.0, value)):.3f}")


def _direction(measured: Measured, name: str) -> Markup:
    """An arrow that says which way is better, in words for those who do not see it."""
    better = measured.quantity(name).better
    if better is None:
        return Markup("")
    words = f"{better} is better"
    return element("span", "↓" if better == "lower" else "↑", class_="arrow", role="img", aria_label=words, title=words)


def _column(name: str, arrow: Markup) -> Markup:
    return element("th", name, " " if arrow else "", arrow, scope="col")


def _table(caption: str, head: Sequence[Markup], body: Sequence[Markup], kind: str | None = None) -> Markup:
    top = element("thead", element("tr", *head)) if head else ""
    table = element("table", element("caption", caption), top, element("tbody", *body), class_=kind)
    # A wide table scrolls in its own frame, also by keyboard, and leaves the page as wide as the screen.
    return join([element("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)])

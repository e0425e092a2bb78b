"""The page: its sections in the order of a reader's questions: did it work, where not, how did it get there?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import evolve

from clora_report import tables
from clora_report.charts import charts_of
from clora_report.curves import line_chart
from clora_report.html import Markup, document, element, join
from clora_report.numbers import duration, label, plain, shown, size
from clora_report.pictures import sheet, strip

if TYPE_CHECKING:
    from clora.api import Composition, Cost, EffectReport, PictureGrid, RunReport

_OVERVIEW = ("source", "truth", "student")
_OVERVIEW_WITHOUT_TRUTH = ("source", "teacher", "student")
_MANY = 16  # effects from which on their pictures in the first screen are smaller


def page(run: RunReport) -> str:
    """The whole report as one HTML text that needs nothing else."""
    anchors = {entry.name: f"effect-{i}" for i, entry in enumerate(run.effects)}
    sections = {
        "numbers": ("Numbers", _numbers(run, anchors)),
        "effects": ("Effects", _effects(run, anchors)),
        "tables": ("Tables", _matrices(run)),
        "pictures": ("Pictures", join(_metric_pictures(n, g) for n, g in run.measured.grids.items())),
        "compositions": ("Compositions", join(_composition(c) for c in run.compositions)),
        "general": ("General instructions", _general(run.general)),
        "training": ("Training", join(line_chart(chart) for chart in charts_of(run))),
        "cost": ("Cost", _cost(run.cost)),
        "recipe": ("Recipe", _recipe(run)),
    }
    kept = {key: (name, body) for key, (name, body) in sections.items() if body}
    contents = [element("a", name, href=f"#{key}") for key, (name, _) in kept.items()]
    parts = [
        element("section", element("h2", name), element("div", body, class_="body"), id=key)
        for key, (name, body) in kept.items()
    ]
    navigation = element("nav", *contents, aria_label="Sections")
    return document(run.title, _first_screen(run, anchors), navigation, element("main", *parts))


def _first_screen(run: RunReport, anchors: Mapping[str, str]) -> Markup:
    """Title, headline numbers, warnings and one picture of every effect."""
    facts = [element("span", f"{name} ", element("b", value)) for name, value in run.facts.items()]
    warnings = [element("li", warning) for warning in run.warnings]
    return element(
        "header",
        element("h1", run.title),
        element("p", run.verdict, class_="verdict") if run.verdict else "",
        element("p", *facts, class_="facts") if facts else "",
        tables.headline(run.measured) if run.measured.values else "",
        element("div", element("b", "Warnings"), element("ul", *warnings), class_="warnings") if warnings else "",
        _overview(run, anchors),
    )


def _overview(run: RunReport, anchors: Mapping[str, str]) -> Markup:
    tiles = []
    shown_grids = {e.name: e.pictures for e in run.effects if e.pictures and e.pictures.subjects and e.pictures.rows}
    for i, (name, grid) in enumerate(shown_grids.items()):
        wanted = _OVERVIEW if "truth" in grid.rows else _OVERVIEW_WITHOUT_TRUTH
        rows = {row: pictures for row, pictures in grid.rows.items() if row in wanted}
        # Another subject for every effect: one that happens to suit or not to suit would tell little.
        subject = i % len(grid.subjects)
        first = strip(evolve(grid, rows=rows or grid.rows), subject, f"{name} on {grid.subjects[subject]}")
        caption = element("figcaption", element("span", name), _badge(run, name))
        tiles.append(element("figure", element("a", first, caption, href=f"#{anchors[name]}")))
    kind = "tiles overview many" if len(tiles) > _MANY else "tiles overview"
    return element("div", *tiles, class_=kind) if tiles else Markup("")


def _badge(run: RunReport, effect: str) -> Markup:
    """The effect's first number of its own, small, beside its name."""
    row = run.measured.per_effect.get(effect)
    if not row:
        return Markup("")
    name, value = next(iter(row.items()))
    return element("small", f"{label(name)} {shown(value, run.measured.quantity(name).unit)}")


def _numbers(run: RunReport, anchors: Mapping[str, str]) -> Markup:
    if not run.measured.values:
        return Markup("")
    effects = tables.by_effect(run.measured, anchors) if run.measured.per_effect else ""
    return join([tables.results(run.measured, "this run"), effects])


def _effects(run: RunReport, anchors: Mapping[str, str]) -> Markup:
    """A card for every effect: its words beside its pictures."""
    return join(_card(entry, run, anchors[entry.name]) for entry in run.effects)


def _card(entry: EffectReport, run: RunReport, anchor: str) -> Markup:
    words = element(
        "dl",
        *_word("the student reads", entry.student_prompt),
        *_word("the teacher reads", entry.teacher_prompt),
    )
    title = element("h3", element("span", entry.name), _badge(run, entry.name))
    pictures = sheet(entry.pictures, entry.name) if entry.pictures else ""
    return element("article", element("div", title, words, class_="words"), pictures, id=anchor, class_="effect")


def _word(name: str, value: str) -> list[Markup]:
    return [element("dt", name), element("dd", value)] if value else []


def _matrices(run: RunReport) -> Markup:
    return join(tables.matrix(name, matrix) for name, matrix in run.measured.matrices.items())


def _metric_pictures(name: str, grid: PictureGrid) -> Markup:
    """Pictures that a metric shows."""
    words = element("div", element("h3", label(name)), element("p", grid.note) if grid.note else "", class_="words")
    return element("article", words, sheet(grid, label(name)), class_="effect")


def _composition(composition: Composition) -> Markup:
    title = join((element("span", name) for name in composition.effects), Markup(" <i>then</i> "))
    words = element("div", element("h3", title), element("p", composition.instruction), class_="words")
    what = f"{' then '.join(composition.effects)}, composed"
    return element("article", words, sheet(composition.pictures, what), class_="effect")


def _general(grid: PictureGrid | None) -> Markup:
    if grid is None or not grid.rows:
        return Markup("")
    tiles = [
        element("figure", strip(grid, i, f"Instruction {instruction!r}"), element("figcaption", instruction))
        for i, instruction in enumerate(grid.subjects)
    ]
    note = "Edits that no teacher knows: what the base could do before, the student should still do."
    return join([element("p", note, class_="muted"), element("div", *tiles, class_="tiles")])


def _cost(cost: Cost | None) -> Markup:
    if cost is None:
        return Markup("")
    rows = {
        "time": duration(cost.seconds),
        "student updates": str(cost.updates),
        "forward passes a cycle and row (with backward: 3)": plain(cost.forward_equivalents),
    }
    if cost.peak_memory is not None:
        rows["peak memory"] = size(cost.peak_memory)
    parts = [tables.pairs("The whole run", rows)]
    if cost.stages:
        parts.append(tables.pairs("Time by stage", {name: duration(s) for name, s in cost.stages.items()}))
    return join(parts)


def _recipe(run: RunReport) -> Markup:
    parts = []
    if run.recipe:
        text = element("pre", element("code", run.recipe), tabindex=0)
        parts.append(element("details", element("summary", "The resolved recipe"), text))
    for caption, rows in {"Versions": run.versions, "Machine": run.machine}.items():
        if rows:
            parts.append(element("details", element("summary", caption), tables.pairs(caption, rows)))
    return join(parts)

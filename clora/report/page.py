"""The page: its sections in the order of a reader's questions: did it work, where not, how did it get there?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clora.files.atomic import write_atomic
from clora.report import tables
from clora.report.curves import line_chart
from clora.report.data import Composition, Cost, EffectEntry, Grid, ReportData
from clora.report.html import Markup, document, element, join
from clora.report.numbers import duration, label, plain, shown, size
from clora.report.pictures import sheet, strip

_OVERVIEW = ("source", "truth", "student")
_OVERVIEW_WITHOUT_TRUTH = ("source", "teacher", "student")
_MANY = 16  # effects from which on their pictures in the first screen are smaller


def page(data: ReportData) -> str:
    """The whole report as one HTML text that needs nothing else."""
    anchors = {entry.name: f"effect-{i}" for i, entry in enumerate(data.effects)}
    sections = {
        "numbers": ("Numbers", _numbers(data, anchors)),
        "effects": ("Effects", _effects(data, anchors)),
        "tables": ("Tables", _matrices(data)),
        "compositions": ("Compositions", join(_composition(c) for c in data.compositions)),
        "general": ("General instructions", _general(data.general)),
        "training": ("Training", join(line_chart(chart) for chart in data.charts)),
        "cost": ("Cost", _cost(data.cost)),
        "recipe": ("Recipe", _recipe(data)),
    }
    kept = {key: (name, body) for key, (name, body) in sections.items() if body}
    contents = [element("a", name, href=f"#{key}") for key, (name, _) in kept.items()]
    parts = [
        element("section", element("h2", name), element("div", body, class_="body"), id=key)
        for key, (name, body) in kept.items()
    ]
    navigation = element("nav", *contents, aria_label="Sections")
    return document(data.title, _first_screen(data, anchors), navigation, element("main", *parts))


def _first_screen(data: ReportData, anchors: Mapping[str, str]) -> Markup:
    """Title, headline numbers, warnings and one picture of every effect."""
    facts = [element("span", f"{name} ", element("b", value)) for name, value in data.facts.items()]
    warnings = [element("li", warning) for warning in data.warnings]
    return element(
        "header",
        element("h1", data.title),
        element("p", data.verdict, class_="verdict") if data.verdict else "",
        element("p", *facts, class_="facts") if facts else "",
        tables.headline(data.measured) if data.measured and data.measured.values else "",
        element("div", element("b", "Warnings"), element("ul", *warnings), class_="warnings") if warnings else "",
        _overview(data, anchors),
    )


def _overview(data: ReportData, anchors: Mapping[str, str]) -> Markup:
    tiles = []
    shown_grids = {name: grid for name, grid in data.effect_grids.items() if grid.subjects and grid.roles}
    for i, (name, grid) in enumerate(shown_grids.items()):
        wanted = _OVERVIEW if "truth" in grid.roles else _OVERVIEW_WITHOUT_TRUTH
        roles = {role: pictures for role, pictures in grid.roles.items() if role in wanted}
        # Another subject for every effect: one that happens to suit or not to suit would tell little.
        subject = i % len(grid.subjects)
        first = strip(Grid(grid.subjects, roles or grid.roles), subject, f"{name} on {grid.subjects[subject]}")
        caption = element("figcaption", element("span", name), _badge(data, name))
        target = anchors.get(name)
        inner = element("a", first, caption, href=f"#{target}") if target else join([first, caption])
        tiles.append(element("figure", inner))
    kind = "tiles overview many" if len(tiles) > _MANY else "tiles overview"
    return element("div", *tiles, class_=kind) if tiles else Markup("")


def _badge(data: ReportData, effect: str) -> Markup:
    """The effect's first number of its own, small, beside its name."""
    row = data.measured.per_effect.get(effect) if data.measured else None
    if not data.measured or not row:
        return Markup("")
    name, value = next(iter(row.items()))
    return element("small", f"{label(name)} {shown(value, data.measured.quantity(name).unit)}")


def _numbers(data: ReportData, anchors: Mapping[str, str]) -> Markup:
    if data.measured is None or not data.measured.values:
        return Markup("")
    effects = tables.by_effect(data.measured, anchors) if data.measured.per_effect else ""
    return join([tables.results(data.measured, "this run"), effects])


def _effects(data: ReportData, anchors: Mapping[str, str]) -> Markup:
    """A card for every effect: its words beside its pictures."""
    return join(_card(entry, data, anchors[entry.name]) for entry in data.effects)


def _card(entry: EffectEntry, data: ReportData, anchor: str) -> Markup:
    grid = data.effect_grids.get(entry.name)
    words = element(
        "dl",
        *_word("the student reads", entry.student_prompt),
        *_word("the teacher reads", entry.teacher_prompt),
    )
    title = element("h3", element("span", entry.name), _badge(data, entry.name))
    pictures = sheet(grid, entry.name) if grid else ""
    return element("article", element("div", title, words, class_="words"), pictures, id=anchor, class_="effect")


def _word(name: str, value: str) -> list[Markup]:
    return [element("dt", name), element("dd", value)] if value else []


def _matrices(data: ReportData) -> Markup:
    if data.measured is None or not data.measured.matrices:
        return Markup("")
    return join(tables.matrix(name, matrix) for name, matrix in data.measured.matrices.items())


def _composition(composition: Composition) -> Markup:
    title = join((element("span", name) for name in composition.effects), Markup(" <i>then</i> "))
    words = element("div", element("h3", title), element("p", composition.instruction), class_="words")
    what = f"{' then '.join(composition.effects)}, composed"
    return element("article", words, sheet(composition.grid, what), class_="effect")


def _general(grid: Grid | None) -> Markup:
    if grid is None or not grid.roles:
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


def _recipe(data: ReportData) -> Markup:
    parts = []
    if data.recipe:
        text = element("pre", element("code", data.recipe), tabindex=0)
        parts.append(element("details", element("summary", "The resolved recipe"), text))
    if data.versions:
        parts.append(element("details", element("summary", "Versions"), tables.pairs("Versions", data.versions)))
    return join(parts)


def write_report(path: Path, data: ReportData) -> None:
    """Write the page in one step; CloraError where the file cannot be written."""
    write_atomic(path, page(data))

"""Line charts as inline SVG: the measured values faint, a smoothed line over them, its name at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from attrs import frozen

from clora_report.html import Markup, element, join
from clora_report.numbers import label, plain
from clora_report.scales import Scale, tick_text

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 520, 300
_LEFT, _TOP, _BOTTOM = 52, 12, 40
_MOST = 240  # points drawn of one series; more would not be seen and make the page large
_COLOURS = 6
_LABEL_GAP = 16


@frozen
class Chart:
    """Curves that share their axes: series name -> (step, value) in the order of the steps."""

    title: str
    series: Mapping[str, Points]
    log: bool = False  # values on a logarithmic axis; those that are not positive are left out


def smooth(points: Points) -> list[tuple[float, float]]:
    """A running mean over about a twelfth of the points, centred where there are points on both sides.

    At the start the window shrinks to the first point, whose fall it would hide; at the end it keeps its left half, so
    that the last value, which people read, is no single draw.
    """
    reach = len(points) // 24
    values = [v for _, v in points]
    return [(step, fmean(values[max(0, i - reach) : i + min(reach, i) + 1])) for i, (step, _) in enumerate(points)]


def thin(points: Points) -> list[tuple[float, float]]:
    """At most _MOST points: means of neighbours."""
    if len(points) <= _MOST:
        return list(points)
    edges = [round(i * len(points) / _MOST) for i in range(_MOST + 1)]
    parts = [points[a:b] for a, b in pairwise(edges)]
    return [(fmean(s for s, _ in part), fmean(v for _, v in part)) for part in parts]


def line_chart(chart: Chart) -> Markup:
    """The chart with its title and, for those who do not see it, first and last values in words."""
    series = {name: _usable(points, chart.log) for name, points in chart.series.items()}
    drawn = {name: points for name, points in series.items() if points}
    title = element("figcaption", chart.title)
    if not drawn:
        return element("figure", title, element("p", "No values.", class_="muted"), class_="chart")
    smoothed = {name: smooth(points) for name, points in drawn.items()}
    right = _WIDTH - 14 - min(160, max(len(label(name)) for name in drawn) * 8)
    x = Scale.around([s for points in drawn.values() for s, _ in points], _LEFT, right)
    y = Scale.around(_range(drawn, smoothed), _HEIGHT - _BOTTOM, _TOP, chart.log)
    picture = element(
        "svg",
        *_axes(x, y),
        _lines(drawn, smoothed, x, y),
        *_names(smoothed, x, y),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{chart.title}: {_in_words(smoothed)}",
    )
    return element("figure", title, picture, class_="chart")


def _usable(points: Points, log: bool) -> list[tuple[float, float]]:
    return [(s, v) for s, v in points if math.isfinite(s) and math.isfinite(v) and (v > 0 or not log)]


def _range(drawn: Mapping[str, Points], smoothed: Mapping[str, Points]) -> list[float]:
    """The values that the axis must hold: all smoothed ones, the measured ones without the outermost two per cent."""
    values = [v for points in smoothed.values() for _, v in points]
    for points in drawn.values():
        ordered = sorted(v for _, v in points)
        cut = len(ordered) // 50
        values += [ordered[cut], ordered[-1 - cut]]
    return values


def _axes(x: Scale, y: Scale) -> list[Markup]:
    out = []
    for value in y.ticks():
        at = f"{y.at(value):.1f}"
        out.append(element("line", x1=x.start, x2=f"{x.end:.1f}", y1=at, y2=at, class_="rule"))
        out.append(element("text", tick_text(value), x=_LEFT - 7, y=at, dy="0.35em", text_anchor="end"))
    for value in x.ticks(4):
        out.append(element("text", tick_text(value), x=f"{x.at(value):.1f}", y=y.start + 17, text_anchor="middle"))
    middle = f"{(x.start + x.end) / 2:.1f}"
    out.append(element("text", "student update", x=middle, y=_HEIGHT - 6, text_anchor="middle", class_="axis"))
    return out


def _lines(drawn: Mapping[str, Points], smoothed: Mapping[str, Points], x: Scale, y: Scale) -> Markup:
    """All lines, in a nested drawing that cuts off what lies outside the axes."""
    faint = [_path(points, x, y, f"raw {_kind(i)}") for i, points in enumerate(drawn.values())]
    strong = [_path(points, x, y, f"mean {_kind(i)}") for i, points in enumerate(smoothed.values())]
    left, top, width, height = x.start, y.end - 3, x.end - x.start + 3, y.start - y.end + 6
    box = f"{left:g} {top:g} {width:.1f} {height:g}"
    return element("svg", *faint, *strong, x=left, y=top, width=f"{width:.1f}", height=height, viewBox=box)


def _path(points: Points, x: Scale, y: Scale, kind: str) -> Markup:
    places = [f"{x.at(s):.1f} {y.at(v):.1f}" for s, v in thin(points)]
    # A lone point is a line of no length, which round caps make visible.
    return element("path", d=f"M{'L'.join(places if len(places) > 1 else places * 2)}", class_=kind)


def _kind(index: int) -> str:
    """Colour and, after all colours are used, a dash: no two series look alike by colour alone."""
    return f"s{index % _COLOURS} d{index // _COLOURS % 3}"


def _names(smoothed: Mapping[str, Points], x: Scale, y: Scale) -> list[Markup]:
    """The series' names beside their last points, moved apart where they would lie on each other."""
    ends = sorted((y.at(points[-1][1]), i, name) for i, (name, points) in enumerate(smoothed.items()))
    places: list[float] = []
    for at, _, _ in ends:
        places.append(max(at, places[-1] + _LABEL_GAP) if places else at)
    floor = y.start
    for i in reversed(range(len(places))):
        places[i] = min(places[i], floor)
        floor = places[i] - _LABEL_GAP
    out = []
    for (at, i, name), place in zip(ends, places, strict=True):
        x0 = x.at(smoothed[name][-1][0]) + 2
        colour = f"s{i % _COLOURS}"
        if abs(place - at) > 3 or x0 < x.end - 6:
            lead = f"M{x0:.1f} {at:.1f}L{x.end + 9:.1f} {place:.1f}"
            out.append(element("path", d=lead, class_=f"lead {colour}"))
        out.append(
            element(
                "text",
                _short(label(name)),
                x=f"{x.end + 12:.1f}",
                y=f"{place:.1f}",
                dy="0.35em",
                class_=f"name {colour}",
            )
        )
    return out


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"


def _in_words(smoothed: Mapping[str, Points]) -> str:
    return join(
        (
            f"{label(n)} from {plain(p[0][1])} at step {p[0][0]:g} to {plain(p[-1][1])} at {p[-1][0]:g}"
            for n, p in smoothed.items()
        ),
        "; ",
    )

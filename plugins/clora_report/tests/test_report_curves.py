"""Curves of the report: scales, ticks, smoothing, and charts of difficult numbers."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from clora_report.curves import Chart, line_chart, smooth, thin
from clora_report.numbers import duration, plain, shown, size, split_references
from clora_report.scales import Scale, tick_text

from clora.api import Measured, Quantity, Reference


def test_scales_map_ends_to_ends():
    linear = Scale.around([2, 6], 100, 0)
    assert [linear.at(v) for v in (2, 4, 6)] == [100, 50, 0]
    log = Scale.around([0.01, 1], 0, 100, log=True)
    assert log.at(0.1) == pytest.approx(50)


@pytest.mark.parametrize("values", [[0, 1], [-3, 8], [1e-6, 3e-6], [12, 98000], [5, 5], [0, 0], [-1, -1]])
def test_ticks_are_round_and_inside(values: list[float]):
    scale = Scale.around(values, 0, 100)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 11
    assert all(scale.low - 1e-9 <= t <= scale.high + 1e-9 * abs(scale.high) for t in ticks)


@pytest.mark.parametrize("values", [[0.01, 1], [3, 4], [1e-9, 1e9], [5, 5], [0.11, 0.19]])
def test_log_ticks_are_inside(values: list[float]):
    scale = Scale.around(values, 0, 100, log=True)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 12
    assert all(scale.low * 0.99 <= t <= scale.high * 1.01 for t in ticks)


def test_smoothing_keeps_a_line_and_its_first_point():
    line = [(i, 3.0 * i) for i in range(100)]
    smoothed = smooth(line)
    assert smoothed[0] == line[0]
    assert smoothed[50][1] == pytest.approx(150)
    assert smooth([(1, 2.0)]) == [(1, 2.0)]


def test_thinning_keeps_means_and_bounds_the_size():
    points = [(i, float(i % 7)) for i in range(10_000)]
    thinned = thin(points)
    assert len(thinned) == 240
    assert sum(v for _, v in thinned) / 240 == pytest.approx(3, abs=0.05)


def test_series_differ_in_more_than_colour_when_colours_run_out():
    chart = line_chart(Chart("many", {f"s{i}": [(0, i), (1, i + 1)] for i in range(8)}))
    assert 'class="mean s0 d0"' in chart
    assert 'class="mean s0 d1"' in chart


def test_names_do_not_lie_on_each_other():
    chart = line_chart(Chart("close", {f"series {i}": [(0, 1.0), (1, 1.0 + i * 1e-3)] for i in range(5)}))
    places = sorted(float(y) for y in re.findall(r'y="([\d.]+)" dy="0.35em" class="name', chart))
    assert len(places) == 5
    assert all(b - a >= 15.9 for a, b in pairwise(places))


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1, math.nan)],
        [(1, 1.0)],
        [(1, math.inf), (2, 1.0), (3, -1.0)],
        [(i, 0.0) for i in range(10)],
        [(i, 10.0**-i) for i in range(300)],
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_difficult_numbers_never_reach_the_drawing(points: list[tuple[float, float]], log: bool):
    chart = line_chart(Chart("t", {"a": points, "b": []}, log=log))
    assert "nan" not in chart
    assert "inf" not in chart
    assert "<figure" in chart


def test_numbers_are_written_for_people():
    assert [plain(v) for v in (0, 0.0314159, 4.3333, 123.4, 1e-7, math.nan)] == [
        "0",
        "0.0314",
        "4.33",
        "123",
        "1.00e-07",
        "–",
    ]
    assert shown(0.0871, "%") == "8.7 %"
    assert shown(0.0871) == "0.0871"
    assert shown(None, "%") == "–"
    assert [duration(s) for s in (0.31, 48, 59.99, 213.4, 7500)] == [
        "0.3 s",
        "48 s",
        "1 min 00 s",
        "3 min 33 s",
        "2 h 05 min",
    ]
    assert [size(v) for v in (0, 1023, 1_500_000_000)] == ["0 B", "1023 B", "1.40 GiB"]
    assert [tick_text(v) for v in (1500, 20000, 0.0002, 1e-9, 1234)] == ["1.5k", "20k", "0.0002", "1e-09", "1234"]


def test_references_are_those_that_the_metrics_name():
    values = {"d": 1.0, "theirs": 2.0, "before": 3.0, "alone": 4.0, "teacher_d": 5.0}
    beside = {"theirs": ("teacher", "d"), "before": ("base", "d"), "alone": ("teacher", "gone")}
    quantities = {name: Quantity(reference=Reference(who, of)) for name, (who, of) in beside.items()}
    own, references = split_references(Measured(values, quantities))
    assert own == {"d": 1.0, "alone": 4.0, "teacher_d": 5.0}
    assert references == {"teacher": {"d": 2.0}, "base": {"d": 3.0}}

"""Which curves a report shows: the losses, and one chart for every quantity that is logged beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from clora.api import RunReport, StepReport
from clora_report.curves import Chart


def charts_of(run: RunReport) -> tuple[Chart, ...]:
    """The warm start's losses against its own updates, then everything against the student's updates."""
    warm = (Chart("warm start", _series(run.warm_steps, lambda step: step.losses), log=True),)
    return (*(warm if run.warm_steps else ()), *(_charts(run.steps) if run.steps else ()))


def _charts(steps: Sequence[StepReport]) -> tuple[Chart, ...]:
    charts = [Chart("losses", _series(steps, lambda step: step.losses), log=True)]
    groups: dict[str, list[str]] = {}
    for name in sorted({name for step in steps for name in step.logs}):
        groups.setdefault(quantity_of(name)[1], []).append(name)
    for quantity, names in groups.items():
        series = _series(steps, lambda step, names=names: {n: step.logs[n] for n in names if n in step.logs})
        series = {quantity_of(name)[0]: points for name, points in series.items()}
        positive = all(value > 0 for points in series.values() for _, value in points)
        charts.append(Chart(quantity.replace("_", " "), series, log=positive))
    return tuple(charts)


def quantity_of(name: str) -> tuple[str, str]:
    """A log's series and quantity: `critic.on_target.grad.high` is `critic.on_target high` of `grad`."""
    *owner, quantity = name.split(".")[: 3 if name.startswith("critic.") and name.count(".") > 1 else 2]
    part = name.split(".")[len(owner) + 1 :]
    return " ".join([".".join(owner), *part]), quantity


def _series(
    steps: Sequence[StepReport], pick: Callable[[StepReport], Mapping[str, float]]
) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for step in steps:
        for name, value in pick(step).items():
            series.setdefault(name, []).append((step.step, value))
    return series

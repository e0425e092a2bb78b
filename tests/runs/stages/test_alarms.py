"""What losses find wrong in a finished run stands in the report and at the end of `clora run`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

import pytest
from attrs import frozen

from clora.cli import run as command
from clora.config.schema import Critic, Recipe, Train
from clora.contracts.values import StepReport
from clora.runs.stages.alarms import alarms


@frozen
class Listens:
    """A loss that says all it is told."""

    streams: tuple = ("effect",)
    weight: float = 1.0

    def alarms(self, course: Mapping[str, Sequence[tuple[float, float]]]) -> Iterable[str]:
        yield str({name: list(values) for name, values in sorted(course.items())})


def plan(**parts) -> SimpleNamespace:
    return SimpleNamespace(recipe=Recipe(None, None, None, None, None, train=Train(steps=4), **parts))


def reports(logs: Mapping[str, float]) -> list[StepReport]:
    return [StepReport(step, {}, 1.0, 3.0, 1e-3, logs) for step in (1, 2)]


def test_every_loss_hears_its_own_logs_by_the_progress_of_the_run():
    logs = {"a.size": 1.0, "a.size.high": 2.0, "ab.size": 3.0, "critic.a.size": 4.0, "student.grad_norm": 5.0}
    made = plan(losses={"a": Listens(), "quiet": object()}, critic=Critic(losses={"a": Listens()}))
    assert alarms(made, reports(logs)) == (
        "a: {'size': [(0.25, 1.0), (0.5, 1.0)], 'size.high': [(0.25, 2.0), (0.5, 2.0)]}",
        "critic.a: {'size': [(0.25, 4.0), (0.5, 4.0)]}",
    )


def test_without_updates_nothing_is_wrong():
    assert alarms(plan(), ()) == ()


@pytest.mark.parametrize(("contrast", "count"), [(1.1, 1), (1.0, 0)])
def test_the_end_of_a_run_warns(contrast, count, monkeypatch, capsys):
    dmd = pytest.importorskip("clora_dmd.dmd").Dmd("target")
    made = SimpleNamespace(recipe=Recipe(None, None, None, None, None, train=Train(steps=40), losses={"ts_dmd": dmd}))
    steps = [StepReport(step, {}, 1.0, 3.0, 1e-3, {"ts_dmd.contrast_student": contrast}) for step in range(1, 41)]
    monkeypatch.setattr("clora.runs.job.make_job", lambda *_: None)
    monkeypatch.setattr("clora.runs.pipeline.Pipeline", lambda *_: SimpleNamespace(run=lambda: None))
    monkeypatch.setattr("clora.runs.files.steps.read_steps", lambda path: SimpleNamespace(reports=steps))
    monkeypatch.setattr(command, "headline", lambda folder, reports: "numbers")
    assert command.carry_out(made, None, SimpleNamespace(steps=None), quiet=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "numbers"
    assert len(lines) == 1 + count
    assert all("ts_dmd: the student is over-saturated" in line and line.startswith("warning") for line in lines[1:])

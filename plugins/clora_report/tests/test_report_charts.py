"""Which logs share a chart: one a quantity, a series for each loss and part."""

from __future__ import annotations

from pathlib import Path

import pytest
from clora_report.charts import charts_of, quantity_of

from clora.api import RunInfo, RunReport, StepReport


@pytest.mark.parametrize(
    ("name", "series", "quantity"),
    [
        ("bs_dmd.gradient_norm", "bs_dmd", "gradient_norm"),
        ("bs_dmd.contrast_critic.high", "bs_dmd high", "contrast_critic"),
        ("student.grad_norm", "student", "grad_norm"),
        ("critic.grad_norm", "critic", "grad_norm"),
        ("critic.on_target.rows", "critic.on_target", "rows"),
        ("critic.on_target.gap.low", "critic.on_target low", "gap"),
        ("teacher.stall", "teacher", "stall"),
    ],
)
def test_a_log_is_a_series_of_its_quantitys_chart(name, series, quantity):
    assert quantity_of(name) == (series, quantity)


def test_a_quantity_is_one_chart_with_all_its_parts():
    logs = {"a.contrast": 1.0, "a.contrast.high": 1.2, "b.contrast": 0.9, "student.grad_norm": 3.0}
    steps = [StepReport(step, {"a": 2.0}, 1.0, 3.0, 1e-3, logs) for step in (1, 2)]
    run = RunReport(RunInfo("mine", Path("mine"), "d", 2), "title", steps=tuple(steps), warm_steps=tuple(steps[:1]))
    warm, losses, contrast, norm = charts_of(run)
    assert (warm.title, warm.series) == ("warm start", {"a": [(1, 2.0)]})
    assert losses.title == "losses"
    assert (contrast.title, set(contrast.series)) == ("contrast", {"a", "a high", "b"})
    assert contrast.series["a high"] == [(1, 1.2), (2, 1.2)]
    assert set(norm.series) == {"student"}


def test_a_run_without_updates_has_no_chart():
    assert charts_of(RunReport(RunInfo("mine", Path("mine"), "d", 0), "title")) == ()

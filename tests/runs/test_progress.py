"""What a person sees of training: the first update of a stage at once, then a line every few seconds, and the last."""

from __future__ import annotations

from io import StringIO

from clora.contracts.values import StepReport
from clora.runs.progress import Progress


def test_the_first_update_of_every_stage_is_shown_at_once_and_then_a_few() -> None:
    stream = StringIO()
    progress = Progress(stream=stream)
    for label in ("warm start", "train"):
        for step in range(1, 6):
            progress.step(StepReport(step, {"bs_dmd": 0.5}, 0.01, 12.0, 1e-3), 5, label)
    shown = [line.split("] ")[1].split("  ")[0] for line in stream.getvalue().splitlines()]
    assert shown == ["warm start 1/5", "warm start 5/5", "train 1/5", "train 5/5"]

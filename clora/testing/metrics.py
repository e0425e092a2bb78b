"""What `clora.testing.conformance` asks of a metric: numbers, the same each time, from pictures left as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clora.contracts.evaluation import EffectPictures, Evaluation
from clora.plugin_system.guard import Owners
from clora.runs.stages.measuring import measured_problem


def metric_problems(metric: Any) -> Iterator[str]:
    """Findings that are numbers, the same each time, from pictures that stay as they are."""
    evaluation = _evaluation()
    before = [pictures.student.clone() for pictures in evaluation.effects]
    with Owners().calling("metrics"):
        found, again = metric.measure(evaluation), metric.measure(evaluation)
    problem = measured_problem(found)
    if problem is not None:
        yield f"it {problem}"
        return
    if dict(found.values) != dict(again.values):
        yield "the same pictures gave two findings"
    if any(not pictures.student.equal(old) for pictures, old in zip(evaluation.effects, before, strict=True)):
        yield "it changed the pictures, which other metrics and the report read"


def _evaluation() -> Evaluation:
    """Three effects of four pictures each, with truths and teachers."""
    import torch

    draw = torch.Generator().manual_seed(0)
    source = torch.rand(4, 3, 16, 16, generator=draw) * 2 - 1
    truths = {"clay": -source, "ink": source.flip(-1), "wool": 0.5 * source}
    names = ("a", "b", "c", "d")
    effects = [
        EffectPictures(effect, names, source, 0.9 * truth, 0.95 * truth, truths) for effect, truth in truths.items()
    ]
    return Evaluation(effects, None)

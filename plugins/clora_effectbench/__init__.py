"""Metrics of effects: against the known truth, against the teacher's own pictures, and by an image encoder."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_metrics() -> list[Component]:
    """Register the metrics `truth`, `to_teacher` and `similarity`."""
    return [
        Component("truth", "clora_effectbench.truth:TruthMetric"),
        Component("to_teacher", "clora_effectbench.to_teacher:ToTeacherMetric"),
        Component("similarity", "clora_effectbench.similarity:SimilarityMetric"),
    ]

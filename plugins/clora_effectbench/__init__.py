"""Metrics of effects: against the known truth, against the teacher's own pictures, and by an image encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clora.api import hookimpl

if TYPE_CHECKING:
    from clora.api import Component


@hookimpl
def clora_metrics() -> list[Component]:
    """Register the metrics `truth`, `to_teacher` and `similarity`."""
    from clora.api import Component
    from clora_effectbench.similarity import SimilarityMetric
    from clora_effectbench.to_teacher import ToTeacherMetric
    from clora_effectbench.truth import TruthMetric

    return [
        Component("truth", TruthMetric),
        Component("to_teacher", ToTeacherMetric),
        Component("similarity", SimilarityMetric),
    ]

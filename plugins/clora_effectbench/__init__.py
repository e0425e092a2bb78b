"""Metrics of effects whose truth is known: bad cases, bleed, subject consistency and what the general stream keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clora.api import hookimpl

if TYPE_CHECKING:
    from clora.api import Component


@hookimpl
def clora_metrics() -> list[Component]:
    """Register the metric `truth`."""
    from clora.api import Component
    from clora_effectbench.truth import TruthMetric

    return [Component("truth", TruthMetric)]

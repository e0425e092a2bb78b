"""TA-FM: anchors the student's trajectory in the teacher's own outputs (CollectionLoRA)."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_losses() -> list[Component]:
    """Register the losses `ta_fm` and `velocity_matching`."""
    return [
        Component("ta_fm", "clora_tafm.anchoring:TaFm"),
        Component("velocity_matching", "clora_tafm.velocity:VelocityMatching"),
    ]

"""TA-FM: anchors the student's trajectory in the teacher's own outputs (CollectionLoRA)."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_losses() -> list[Component]:
    """Register the losses `ta_fm` and `velocity_matching`."""
    from clora_tafm.anchoring import TaFm
    from clora_tafm.velocity import VelocityMatching

    return [Component("ta_fm", TaFm), Component("velocity_matching", VelocityMatching)]

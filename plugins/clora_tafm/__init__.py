"""TA-FM: anchors the student's trajectory in the teacher's own outputs (CollectionLoRA)."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_losses() -> list[Component]:
    """Register the loss `ta_fm`."""
    from clora_tafm.anchoring import TaFm

    return [Component("ta_fm", TaFm)]

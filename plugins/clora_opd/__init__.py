"""On-policy distillation: the student's velocity is matched to its teacher's where the student's own sampler goes."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_losses() -> list[Component]:
    """Register the loss `opd`."""
    return [Component("opd", "clora_opd.matching:OnPolicyDistillation")]

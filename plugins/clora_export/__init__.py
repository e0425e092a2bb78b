"""A run's LoRA for other tools: a second layout, the sampler, a model card, a workflow, sample pictures."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_exporters() -> list[Component]:
    """Register the exporter `bundle`."""
    return [Component("bundle", "clora_export.bundle:Bundle")]

"""PDSR: every row of every step follows either the general stream or one effect's teacher (CollectionLoRA)."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_routers() -> list[Component]:
    """Register the router `pdsr`."""
    return [Component("pdsr", "clora_pdsr.router:Pdsr")]

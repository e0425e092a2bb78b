"""PDSR: every row of every step follows either the general stream or one effect's teacher (CollectionLoRA)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clora.api import Component, hookimpl

if TYPE_CHECKING:
    from clora_pdsr.router import Pdsr as Pdsr


@hookimpl
def clora_routers() -> list[Component]:
    """Register the router `pdsr`."""
    from clora_pdsr.router import Pdsr

    return [Component("pdsr", Pdsr)]

"""A bank of effect LoRAs, listed in one manifest."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_teachers() -> list[Component]:
    """Register the teachers `bank`."""
    return [Component("bank", "clora_teachers.bank:Bank")]

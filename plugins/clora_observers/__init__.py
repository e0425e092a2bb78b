"""What watches the training of a run."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_observers() -> list[Component]:
    """Register the observer `previews`."""
    return [Component("previews", "clora_observers.previews:Previews")]

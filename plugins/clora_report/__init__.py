"""The report of a run as one HTML page that opens offline."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_reporters() -> list[Component]:
    """Register the reporter `html`."""
    return [Component("html", "clora_report.reporter:HtmlReport")]

"""FLUX.1 Kontext through diffusers' own classes."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_backbones() -> list[Component]:
    """`backbone: {use: flux_kontext}`."""
    from .backbone import FluxKontext

    return [Component("flux_kontext", FluxKontext)]

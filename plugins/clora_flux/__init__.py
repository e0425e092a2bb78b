"""FLUX.1 Kontext through diffusers' own classes."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_backbones() -> list[Component]:
    """`backbone: {use: flux_kontext}`."""
    return [Component("flux_kontext", "clora_flux.backbone:FluxKontext")]

"""Distribution matching: where the student is taken (backward, target simulation) and how it is corrected there."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_simulations() -> list[Component]:
    """Register the simulation schedules `backward` and `target`."""
    return [Component("backward", "clora_dmd.backward:Backward"), Component("target", "clora_dmd.target:Target")]


@hookimpl
def clora_losses() -> list[Component]:
    """Register the student's losses `dmd` and `gan`, and the critic's `critic_flow_matching`."""
    return [
        Component("dmd", "clora_dmd.dmd:Dmd"),
        Component("gan", "clora_dmd.gan:Gan"),
        Component("critic_flow_matching", "clora_dmd.critic:CriticFlowMatching"),
    ]

"""Distribution matching: where the student is taken (backward, target simulation) and how it is corrected there."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_simulations() -> list[Component]:
    """Register the simulation schedules `backward` and `target`."""
    from clora_dmd.backward import Backward
    from clora_dmd.target import Target

    return [Component("backward", Backward), Component("target", Target)]


@hookimpl
def clora_losses() -> list[Component]:
    """Register the student's loss `dmd` and the critic's `critic_flow_matching`."""
    from clora_dmd.critic import CriticFlowMatching
    from clora_dmd.dmd import Dmd

    return [Component("dmd", Dmd), Component("critic_flow_matching", CriticFlowMatching)]

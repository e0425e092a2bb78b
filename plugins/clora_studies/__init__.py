"""Studies beside the method: finished runs side by side, and the baseline that merges the bank without training."""

from __future__ import annotations

from clora.api import Command, Component, hookimpl


@hookimpl
def clora_commands() -> list[Command]:
    """Register `clora compare`."""
    return [Command("compare", "put several runs' results side by side", "clora_studies.compare_command")]


@hookimpl
def clora_mergers() -> list[Component]:
    """Register `peft`, which merges LoRAs by PEFT's methods."""
    return [Component("peft", "clora_studies.merging:PeftMerger")]

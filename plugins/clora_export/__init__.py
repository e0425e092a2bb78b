"""A run's LoRA for other tools: the folder of a model hub, PEFT's layout, the base with the LoRA in its weights."""

from __future__ import annotations

from clora.api import Command, Component, hookimpl

COMMAND = Command(
    "export",
    "write a run's LoRA for other tools, or merge it into its base",
    "clora_export.command",
    computes=True,
)


@hookimpl
def clora_exporters() -> list[Component]:
    """Register the exporter `bundle`."""
    return [Component("bundle", "clora_export.bundle:Bundle")]


@hookimpl
def clora_commands() -> list[Command]:
    """Register `clora export`."""
    return [COMMAND]

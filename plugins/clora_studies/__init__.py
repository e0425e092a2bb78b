"""Studies over several finished runs: `clora compare`."""

from __future__ import annotations

from clora.api import Command, hookimpl


@hookimpl
def clora_commands() -> list[Command]:
    """Register `clora compare`."""
    return [Command("compare", "put several runs' results side by side", "clora_studies.compare_command")]

"""What `clora.testing.conformance` asks of a prompt strategy: words for everything, the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clora.contracts.values import EffectCard, GeneralItem
from clora.planning.texts import prompts_of
from clora.plugin_system.guard import Owners
from clora.testing.fake_network import EFFECTS


def prompt_problems(strategy: Any) -> Iterator[str]:
    """Words for effects and instructions, the same each time."""
    cards = [EffectCard(name, Path(f"{name}.safetensors"), "make it artistic", f"all {name}") for name in EFFECTS]
    for about in (*cards, GeneralItem("cat.png", "make it night")):
        if prompts_of(strategy, about, Owners()) != prompts_of(strategy, about, Owners()):
            yield "it gives other words each time: a run that is gone on with would train other prompts"
            return

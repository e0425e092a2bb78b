"""AOP: the student reads words that no two effects share, the teacher those it was trained with (CollectionLoRA)."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_prompts() -> list[Component]:
    """Register the prompt strategies `aop` and `shared`."""
    return [Component("aop", "clora_aop.prompting:Aop"), Component("shared", "clora_aop.prompting:Shared")]

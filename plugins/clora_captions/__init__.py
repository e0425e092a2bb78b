"""Captions by vision-language models: `clora caption`, a local model, any endpoint with OpenAI's chat completions."""

from __future__ import annotations

from clora.api import Command, Component, hookimpl


@hookimpl
def clora_captioners() -> list[Component]:
    """Register the captioners `qwen_vl` and `openai`."""
    return [Component("qwen_vl", "clora_captions.qwen_vl:QwenVl"), Component("openai", "clora_captions.openai:OpenAi")]


@hookimpl
def clora_commands() -> list[Command]:
    """Register `clora caption`."""
    line = "have a vision-language model describe every effect that has no caption yet"
    return [Command("caption", line, "clora_captions.command", computes=True)]

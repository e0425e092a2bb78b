"""Writers of captions: a local vision-language model, or any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_captioners() -> list[Component]:
    """Register the captioners `qwen_vl` and `openai`."""
    return [Component("qwen_vl", "clora_captions.qwen_vl:QwenVl"), Component("openai", "clora_captions.openai:OpenAi")]

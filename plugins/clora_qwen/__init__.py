"""Qwen-Image-Edit through diffusers' own classes."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_backbones() -> list[Component]:
    """`backbone: {use: qwen_image_edit}`."""
    return [Component("qwen_image_edit", "clora_qwen.backbone:QwenImageEdit")]

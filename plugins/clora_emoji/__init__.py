"""The embedded world: real emoji by several artists, a small Qwen-Image edit model, effects with known truth."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_backbones() -> list[Component]:
    """`backbone: {use: emoji}`."""
    return [Component("emoji", "clora_emoji.backbone:EmojiBackbone")]


@hookimpl
def clora_datasets() -> list[Component]:
    """`dataset: {use: emoji}`."""
    return [Component("emoji", "clora_emoji.dataset:EmojiDataset")]

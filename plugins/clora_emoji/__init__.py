"""The embedded world: real emoji by several artists, a small Qwen-Image edit model, effects with known truth."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_backbones() -> list[Component]:
    """`backbone: {use: emoji}`."""
    from .backbone import EmojiBackbone

    return [Component("emoji", EmojiBackbone)]


@hookimpl
def clora_datasets() -> list[Component]:
    """`dataset: {use: emoji}`."""
    from .dataset import EmojiDataset

    return [Component("emoji", EmojiDataset)]

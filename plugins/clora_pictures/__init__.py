"""Your own pictures, listed in JSONL files."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_datasets() -> list[Component]:
    """Register the dataset `jsonl`."""
    from clora_pictures.dataset import JsonlDataset

    return [Component("jsonl", JsonlDataset)]

"""Your own pictures, from the lists and folders that they lie in."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_datasets() -> list[Component]:
    """Register the dataset `pictures`, also under its first name, `jsonl`."""
    return [
        Component("pictures", "clora_pictures.dataset:PicturesDataset"),
        Component("jsonl", "clora_pictures.dataset:PicturesDataset"),
    ]

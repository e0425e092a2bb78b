"""Your own pictures, from the lists and folders that they lie in."""

from __future__ import annotations

from clora.api import Component, hookimpl


@hookimpl
def clora_datasets() -> list[Component]:
    """Register the dataset `pictures`, also under its first name, `jsonl`."""
    from clora_pictures.dataset import PicturesDataset

    return [Component("pictures", PicturesDataset), Component("jsonl", PicturesDataset)]

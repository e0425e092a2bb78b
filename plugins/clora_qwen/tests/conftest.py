"""Pictures, and stock pipelines that make small ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock pipelines at an area of 128 x 128 for their 1024 x 1024; the text encoder's 384 x 384 stays."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
        real = module.calculate_dimensions

        def smaller(area: int, ratio: float, real: Callable[..., Any] = real) -> Any:
            return real(128 * 128 if area == 1024 * 1024 else area, ratio)

        monkeypatch.setattr(module, "calculate_dimensions", smaller)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., Image.Image]:
    """`drawn(width, height)` is a picture with smooth and sharp parts, another one for another seed."""

    def picture(width: int, height: int, seed: int = 0) -> Image.Image:
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth, dtype=np.int16) + random.integers(-20, 20, (height, width, 3))
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))

    return picture

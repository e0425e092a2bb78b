"""The pytest plugin that comes with clora: fixtures for the tests of somebody's components.

pytest loads it in every project of an environment with clora, so nothing that computes is imported before a test
asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from clora.contracts.step import StepContext
    from clora.contracts.values import Phase, Row
    from clora.testing.tiny_world import TinyWorld


class StepFactory(Protocol):
    """What the fixture `clora_step` gives."""

    def __call__(self, rows: Sequence[Row | str | None], phase: Phase = "student", steps: int = 4) -> StepContext:
        """A step over latents [R, 3, 4, 4] of random numbers that depend on R alone; `steps` are the noise levels.

        Each of `rows` is a Row, the name of an effect, or None for a row of the general stream.
        """
        ...


@pytest.fixture
def clora_step() -> StepFactory:
    """Makes a training step: `clora_step(["ink", None], phase="critic")` has a row of an effect and a general one."""
    import torch

    from clora.contracts.values import Row
    from clora.testing import example_step

    def row_of(each: Row | str | None) -> Row:
        if isinstance(each, Row):
            return each
        return Row("general") if each is None else Row("effect", each)

    def step(rows: Sequence[Row | str | None], phase: Phase = "student", steps: int = 4) -> StepContext:
        made = [row_of(each) for each in rows]
        draw = torch.Generator().manual_seed(len(made))
        return example_step(made, torch.randn(len(made), 3, 4, 4, generator=draw), phase=phase, steps=steps)

    return step


@pytest.fixture
def clora_world(tmp_path: Path) -> TinyWorld:
    """A tiny world whose `train` gives the losses of two updates with a component; its files lie below `tmp_path`."""
    from clora.testing.tiny_world import TinyWorld

    return TinyWorld(tmp_path)

"""The first losses of three worlds are those of the file: moving and renaming code changes no number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import golden_losses
import pytest


@pytest.mark.slow(11)
@pytest.mark.parametrize("world", golden_losses.WORLDS)
def test_losses_are_the_golden_ones(world: str, tiny_qwen: Callable[[str], Path], tmp_path: Path) -> None:
    there, losses = golden_losses.read()
    ours = golden_losses.losses_of(world, tmp_path, tiny_qwen("2511"))
    assert golden_losses.differences(ours, losses[world], golden_losses.machine() == there) == []


def test_a_number_that_moved_is_told() -> None:
    golden = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]
    nearly = [{"a": 1.0, "b": 2.0}, {"a": 3.0 + 1e-12, "b": 4.0}]
    assert golden_losses.differences(golden, golden, True) == []
    assert golden_losses.differences(nearly, golden, True) == ["update 2: a is 3.000000000001, 3.0 in the file"]
    assert golden_losses.differences(nearly, golden, False) == []
    far = [{"a": 1.0, "b": 2.003}, {"a": 3.0}]
    assert golden_losses.differences(far, golden, False) == [
        "update 1: b is 2.003, 2.0 in the file",
        "update 2: ['a'], ['a', 'b'] in the file",
    ]
    assert golden_losses.differences(golden[:1], golden, False) == ["1 updates, 2 in the file"]

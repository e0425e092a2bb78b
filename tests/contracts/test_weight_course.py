"""A loss's weight over the run: rising, falling, and what the cycle makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from clora_dmd.dmd import Dmd
from clora_tafm.anchoring import TaFm

from clora.contracts.method import WeighsOverTime
from clora.contracts.weight_course import course


@pytest.mark.parametrize(
    ("fade_in", "fade_out", "expected"),
    [
        (0.0, 0.0, [1, 1, 1, 1, 1]),
        (0.5, 0.0, [0, 0.5, 1, 1, 1]),
        (0.0, 0.5, [1, 1, 1, 0.5, 0.1]),
        (1.0, 1.0, [0, 0.25 * 0.75, 0.25, 0.75 * 0.25, 0.95 * 0.05]),
    ],
)
def test_the_course_is_two_straight_lines(fade_in, fade_out, expected):
    made = [course(p, fade_in, fade_out) for p in (0.0, 0.25, 0.5, 0.75, 0.95)]
    np.testing.assert_allclose(made, expected, atol=1e-12)


@pytest.mark.parametrize("loss", [Dmd("backward", weight=2.0, fade_in=0.5), TaFm(weight=2.0, fade_in=0.5)])
def test_the_losses_weigh_over_time(loss):
    assert isinstance(loss, WeighsOverTime)
    assert [loss.weight_at(p) for p in (0.0, 0.25, 0.9)] == [0.0, 1.0, 2.0]

"""How a loss's weight changes in the course of a run: from coarse to fine, in the paper's words."""

from __future__ import annotations


def course(progress: float, fade_in: float, fade_out: float) -> float:
    """min(1, p / fade_in) min(1, (1 - p) / fade_out) for p in [0, 1): a factor of a weight, 1 where both are 0.

    `fade_in` is the share of the run over which the weight rises linearly from zero, `fade_out` the share at its end
    over which it falls to zero.
    """
    rising = min(1.0, progress / fade_in) if fade_in else 1.0
    falling = min(1.0, (1 - progress) / fade_out) if fade_out else 1.0
    return rising * falling

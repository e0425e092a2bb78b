"""The switch between the two streams and the choice of the effect."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal

from attrs import field, frozen
from attrs.validators import in_

from clora.api import Route, Row, StepRng, between


@frozen
class Pdsr:
    """Probabilistic switching between the general stream and the effects' streams (CollectionLoRA, PDSR)."""

    #: the probability that a row is of the effect stream
    p_switch: float = field(default=0.5, validator=between(0.0, 1.0))
    #: steps that one draw serves; 20 in the public code
    hold_steps: int = field(default=1, validator=between(1, 1_000_000))
    #: row: every row is drawn for itself; batch: all rows of a rank at once
    per: Literal["row", "batch"] = field(default="row", validator=in_(("row", "batch")))

    def route(self, rng: StepRng, rows: int, effects: Sequence[str]) -> Route:
        """The route of `rows` rows in the step of `rng`, general rows first.

        A pure function of (seed, step // hold_steps, rank), so the route of a coming step can be asked for now. Raises
        ValueError where the effect stream may be drawn but there are no effects.
        """
        if self.p_switch > 0 and not effects:
            raise ValueError(f"the router pdsr has p_switch {self.p_switch:g}, but the teachers' bank has no effects")
        held = rng.at(rng.step // self.hold_steps * self.hold_steps)
        random = held.python("pdsr")
        if self.per == "batch":
            return Route.ordered([self._draw(random, effects)] * rows)
        return Route.ordered([self._draw(random, effects) for _ in range(rows)])

    def _draw(self, random: Random, effects: Sequence[str]) -> Row:
        """p ~ U(0, 1); effect k ~ U{1..K} if p < p_switch, else general   (CollectionLoRA, PDSR).

        Both numbers are always drawn, so that p_switch does not change which effects later rows get.
        """
        p, k = random.random(), random.random()
        return Row("effect", effects[int(k * len(effects))]) if p < self.p_switch else Row("general")

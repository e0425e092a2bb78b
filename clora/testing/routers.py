"""What `clora.testing.conformance` asks of a router: a route for any batch, the same whenever it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clora.diffusion.rng import StepRng
from clora.planning.teacher_schedule import route_problem
from clora.plugin_system.guard import Owners
from clora.testing.fake_network import EFFECTS


def router_problems(router: Any) -> Iterator[str]:
    """A route for any number of rows and effects, the same whenever and in whatever order it is asked for."""
    for rows in (1, 3, 12):
        for effects in (EFFECTS[:1], EFFECTS):
            asked = {step: StepRng(0).at(step) for step in (7, 0, 3)}
            made = {}
            for step, rng in asked.items():
                with Owners().calling("router"):
                    made[step] = router.route(rng, rows, effects)
                problem = route_problem(made[step], rows, effects)
                if problem is not None:
                    yield f"for {rows} rows of {len(effects)} effects it {problem}"
                    return
            if any(router.route(asked[step], rows, effects) != made[step] for step in sorted(asked)):
                yield f"step by step it gives other routes than when asked out of turn ({rows} rows): draw from `rng`"
                return

"""Runs simulations and losses side by side, so that forwards that can share a batch do.

Every component is a generator that yields what it needs. Components that wait for forwards without gradient go first,
packed together; when only forwards with gradient are waited for, those run as one batch. So the student's forwards of
backward simulation, target simulation and trajectory anchoring become one, and so do the critic's and teacher's scores
of every DMD term, though no component knows of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clora.values import Await, Forward, Simulated

if TYPE_CHECKING:
    import torch

    from clora.values import Asking

Evaluate = Callable[[Sequence[Forward]], "Sequence[torch.Tensor]"]


class _Task:
    """One generator: what it waits for, and at last what it returned."""

    def __init__(self, generator: Asking[Any]) -> None:
        self.generator = generator
        self.waits_for: tuple[Forward, ...] | Await | None = None
        self.result: Any = None
        self.send(None)

    def send(self, answer: Any) -> None:
        """Give the answer and run to the next question, or to the end."""
        try:
            self.waits_for = self.generator.send(answer)
        except StopIteration as end:
            self.waits_for, self.result = None, end.value


def run_together(
    simulations: Mapping[str, Asking[Simulated]],
    losses: Mapping[str, Asking[Any]],
    evaluate: Evaluate,
    ready: Mapping[str, Simulated] | None = None,
) -> tuple[dict[str, Simulated], dict[str, Any]]:
    """Drive all generators to their end; returns the simulations' outcomes and the losses' results, by name.

    `ready` holds outcomes that are known already. Raises RuntimeError if a loss awaits a simulation nobody gives.
    """
    outcomes = dict(ready or {})
    simulating = {name: _Task(generator) for name, generator in simulations.items()}
    tasks = [*simulating.values()]
    losing = {name: _Task(generator) for name, generator in losses.items()}
    tasks += losing.values()
    while True:
        for name, task in simulating.items():
            if task.waits_for is None and name not in outcomes:
                outcomes[name] = task.result
        if _hand_out(losing.values(), outcomes):
            continue
        waiting = [task for task in tasks if isinstance(task.waits_for, tuple)]
        if not waiting:
            break
        without = [task for task in waiting if not _has_grad(task)]
        _answer(without or waiting, evaluate)
    for name, task in losing.items():
        if isinstance(task.waits_for, Await):
            raise RuntimeError(f"loss {name} awaits the simulation {task.waits_for.simulation}, which never comes")
    return outcomes, {name: task.result for name, task in losing.items()}


def _has_grad(task: _Task) -> bool:
    return isinstance(task.waits_for, tuple) and any(forward.grad for forward in task.waits_for)


def _hand_out(tasks: Any, outcomes: Mapping[str, Simulated]) -> bool:
    """Send every awaited outcome that is there; tells whether any was sent."""
    sent = False
    for task in tasks:
        if isinstance(task.waits_for, Await) and task.waits_for.simulation in outcomes:
            task.send(outcomes[task.waits_for.simulation])
            sent = True
    return sent


def _answer(tasks: Sequence[_Task], evaluate: Evaluate) -> None:
    """Evaluate all that these tasks wait for in one go and send each its share."""
    asked = [task.waits_for for task in tasks if isinstance(task.waits_for, tuple)]
    velocities = list(evaluate([forward for forwards in asked for forward in forwards]))
    for task, forwards in zip(tasks, asked, strict=True):
        share, velocities = velocities[: len(forwards)], velocities[len(forwards) :]
        task.send(tuple(share))

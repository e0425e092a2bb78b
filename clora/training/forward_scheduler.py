"""Runs simulations and losses side by side, so that forwards that can share a batch do.

Every component is a generator that yields what it needs: a forward, which is answered by its velocity, a tuple or a
dict of forwards, answered alike, or an `Await`. Components that wait for forwards without a graph go first,
packed together; when only forwards with one are waited for, those run as one batch. So the student's forwards of
backward simulation, target simulation and trajectory anchoring become one, and so do the critic's and teacher's scores
of every DMD term, though no component knows of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from clora.contracts.step import Await, Forward, Inside, Simulated
from clora.errors import quoted
from clora.plugin_system.guard import Owners
from clora.training.answers import MOST_QUESTIONS, forwards_of, generator_problem, question_problem, reply

if TYPE_CHECKING:
    import torch

    from clora.contracts.step import ForwardCoroutine

Evaluate = Callable[[Sequence[Forward]], "Sequence[torch.Tensor | Inside]"]
#: (C, H, W) of a batch's latents
Latent = tuple[int, ...]


@frozen
class Guard:
    """What stands around the generators of a step, so that whatever one of them does wrong is told by its name."""

    owners: Owners = field(factory=Owners)
    latent: Latent | None = None
    section: str = "losses"  # where in the recipe the losses stand
    #: (place, what the generator there returned) -> what is wrong with it, if anything is
    check: Callable[[str, object], str | None] = lambda place, result: None


class _Task:
    """One generator: what it waits for, and at last what it returned."""

    def __init__(self, place: str, generator: ForwardCoroutine[Any], guard: Guard) -> None:
        self.place = place
        self.generator = generator
        self.guard = guard
        self.waits_for: Any = None
        self.result: Any = None
        self.asked = 0
        self._refuse(generator_problem(generator))
        self.send(None)

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """The forwards that it waits for; none where it waits for something else, or has ended."""
        return () if isinstance(self.waits_for, Await) else forwards_of(self.waits_for) or ()

    @property
    def waits_for_forwards(self) -> bool:
        """True where it waits for forwards, be they none."""
        return self.waits_for is not None and not isinstance(self.waits_for, Await)

    def send(self, answer: Any) -> None:
        """Give the answer and run to the next question, or to the end."""
        question = None
        with self.guard.owners.calling(self.place):
            try:
                question = self.generator.send(answer)
            except StopIteration as end:
                self.result, ended = end.value, True
            else:
                ended = False
        if ended:
            self.waits_for = None
            self._refuse(self.guard.check(self.place, self.result))
            return
        self.asked += 1
        self._refuse(question_problem(question, self.guard.latent))
        if self.asked > MOST_QUESTIONS:
            self._refuse(f"yielded {MOST_QUESTIONS:,} times in one step; it never comes to an end")
        self.waits_for = question

    def _refuse(self, problem: str | None) -> None:
        if problem is not None:
            raise self.guard.owners.error(self.place, problem)


def run_together(
    simulations: Mapping[str, ForwardCoroutine[Simulated]],
    losses: Mapping[str, ForwardCoroutine[Any]],
    evaluate: Evaluate,
    ready: Mapping[str, Simulated] | None = None,
    guard: Guard = Guard(),
) -> tuple[dict[str, Simulated], dict[str, Any]]:
    """Drive all generators to their end; returns the simulations' outcomes and the losses' results, by name.

    `ready` holds outcomes that are known already. Raises ComponentError, with place and owner, for a generator that
    raises, yields what is no question or returns what it must not, and for one that awaits what nobody gives.
    """
    outcomes = dict(ready or {})
    simulating = {name: _Task(f"simulations.{name}", asking, guard) for name, asking in simulations.items()}
    losing = {name: _Task(f"{guard.section}.{name}", asking, guard) for name, asking in losses.items()}
    tasks = [*simulating.values(), *losing.values()]
    while True:
        for name, each in simulating.items():
            if each.waits_for is None and name not in outcomes:
                outcomes[name] = each.result
        if _hand_out(tasks, outcomes):
            continue
        waiting = [each for each in tasks if each.waits_for_forwards]
        if not waiting:
            break
        without = [each for each in waiting if not any(forward.recorded for forward in each.forwards)]
        _answer(without or waiting, evaluate)
    for each in tasks:
        if isinstance(each.waits_for, Await):
            awaited = each.waits_for.simulation
            raise guard.owners.error(each.place, f"awaits the simulation {quoted(awaited)}, which never comes")
    return outcomes, {name: each.result for name, each in losing.items()}


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
    asked = [(task, task.waits_for, task.forwards) for task in tasks]
    answers = list(evaluate([forward for _, _, forwards in asked for forward in forwards]))
    for task, question, forwards in asked:
        share, answers = answers[: len(forwards)], answers[len(forwards) :]
        task.send(reply(question, share))

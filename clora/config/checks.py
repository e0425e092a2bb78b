"""Mistakes that only show when a recipe's sections are seen together.

They are looked for among the parts that could be made, so that a misspelt key elsewhere does not hide them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from attrs import frozen

from clora.config.messages import dotted
from clora.config.problems import MOST_KNOWN, Problem, UnknownWord
from clora.config.schema import Student
from clora.config.tree import Keypath, Keys, is_null, mark_at
from clora.contracts.losses import CriticLoss, StudentLoss
from clora.contracts.method import ChecksSchedule, UsesCritic, UsesSimulation
from clora.diffusion.flow import Schedule
from clora.errors import CloraError, quoted
from clora.planning.shift import shift_of
from clora.plugin_system.guard import sentences

#: simulations that a message names of a circle
MOST_TOLD = 10


@frozen
class Parts:
    """What could be made of a recipe: components by their path, and the student's section unless it failed."""

    tree: Keys
    components: Mapping[Keypath, Any]
    student: Student | None


def cross_checks(parts: Parts) -> Iterator[Problem]:
    """Every contradiction between parts that are each right."""
    simulations = _simulations(parts.tree)
    student = parts.student

    @cache  # one for all simulations, of which there may be thousands
    def schedule() -> Schedule | None:
        return None if student is None else _schedule(parts, student)

    for path, component in parts.components.items():
        if path[-2:-1] == ("losses",):
            yield from _trains_whom_it_can(parts.tree, path, component)
            yield from _simulation_is_there(parts.tree, path, component, simulations)
            yield from _critic_is_there(parts.tree, path, component)
        elif path[0] == "simulations":
            yield from _simulation_is_there(parts.tree, path, component, simulations)
            if (levels := schedule()) is not None:
                told = schedule_misfits(component, levels)
                yield from (Problem(mark_at(parts.tree, path), f"{dotted(path)}: {message}") for message in told)
    yield from _circles(parts)


def _schedule(parts: Parts, student: Student) -> Schedule | None:
    """The few steps; None where their shift is not known yet, such as of a model that is still to be downloaded.

    The plan, before which the model's small files are read, tells that, or makes this check with them.
    """
    backbone = parts.components.get(("backbone",))
    if student.shift is None and backbone is None:
        return None
    try:
        found = shift_of(student, backbone, parts.components.get(("dataset",)))
        return Schedule.shifted(student.steps, found.shift)
    except CloraError:
        return None


def _simulations(tree: Keys) -> dict[str, None]:
    """The names below `simulations`, in their order."""
    section = tree.get("simulations")
    entries = section.entries if isinstance(section, Keys) else {}
    return {name: None for name, entry in entries.items() if not is_null(entry.value)}


def _trains_whom_it_can(tree: Keys, path: Keypath, loss: Any) -> Iterator[Problem]:
    of_critic = path[0] == "critic"
    if of_critic and isinstance(loss, StudentLoss):
        yield Problem(mark_at(tree, path), f"{dotted(path)} is a loss of the student; it belongs under losses")
    elif not of_critic and isinstance(loss, CriticLoss):
        yield Problem(mark_at(tree, path), f"{dotted(path)} is a loss of the critic; it belongs under critic.losses")


def _circles(parts: Parts) -> Iterator[Problem]:
    """Simulations that wait for one another, each circle once."""
    reads = {
        path[-1]: part.simulation
        for path, part in parts.components.items()
        if path[0] == "simulations" and isinstance(part, UsesSimulation)
    }
    seen: set[str] = set()
    for start in reads:
        walk: dict[str, int] = {}
        here = start
        while here in reads and here not in seen and here not in walk:
            walk[here] = len(walk)
            here = reads[here]
        if here in walk:
            ring = list(walk)[walk[here] :]
            told = " asks for ".join(quoted(name) for name in islice((*ring, here), MOST_TOLD))
            place = ("simulations", here)
            yield Problem(mark_at(parts.tree, (*place, "simulation")), f"{dotted(place)} waits for itself: {told}")
        seen |= walk.keys()


def _simulation_is_there(tree: Keys, path: Keypath, part: Any, known: Mapping[str, None]) -> Iterator[Problem]:
    if isinstance(part, UsesSimulation) and part.simulation not in known:
        missing = f"{dotted(path)} asks for simulation {quoted(part.simulation)}, not in `simulations`"
        words = tuple(islice(known, MOST_KNOWN))
        unknown = UnknownWord(missing, part.simulation, words, "; there is none")
        yield Problem(mark_at(tree, (*path, "simulation")), unknown)


def _critic_is_there(tree: Keys, path: Keypath, loss: Any) -> Iterator[Problem]:
    section = tree.get("critic")
    if not (isinstance(loss, UsesCritic) and loss.needs_critic()):
        return
    if path[0] == "warm_start":
        yield Problem(mark_at(tree, path), f"{dotted(path)} asks for the critic, which the warm start has not yet")
    elif section is None or is_null(section):
        yield Problem(mark_at(tree, path), f"{dotted(path)} asks for the critic, but there is no `critic` section")


def schedule_misfits(simulation: Any, schedule: Schedule) -> list[str]:
    """What a simulation finds wrong with the recipe's few steps, a sentence each."""
    if not isinstance(simulation, ChecksSchedule):
        return []
    return sentences("check_schedule", lambda: simulation.check_schedule(schedule))

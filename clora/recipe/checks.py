"""Mistakes that only show when a recipe's sections are seen together.

They are looked for among the parts that could be made, so that a misspelt key elsewhere does not hide them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from attrs import frozen

from clora.errors import quoted, reason
from clora.flow import Schedule
from clora.protocols import UsesCritic, UsesSimulation
from clora.recipe.problems import MOST_KNOWN, Problem, UnknownWord
from clora.recipe.schema import Student
from clora.recipe.tree import Keypath, Keys, is_null, mark_at
from clora.recipe.words import dotted


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
    def schedule() -> Schedule:
        assert student is not None
        return Schedule.shifted(student.steps, student.shift)

    for path, component in parts.components.items():
        if path[-2:-1] == ("losses",):
            yield from _simulation_is_there(parts.tree, path, component, simulations)
            yield from _critic_is_there(parts.tree, path, component)
        elif path[0] == "simulations" and student is not None:
            yield from _schedule_fits(parts.tree, path, component, schedule)


def _simulations(tree: Keys) -> dict[str, None]:
    """The names below `simulations`, in their order."""
    section = tree.get("simulations")
    entries = section.entries if isinstance(section, Keys) else {}
    return {name: None for name, entry in entries.items() if not is_null(entry.value)}


def _simulation_is_there(tree: Keys, path: Keypath, loss: Any, known: Mapping[str, None]) -> Iterator[Problem]:
    if isinstance(loss, UsesSimulation) and loss.simulation not in known:
        missing = f"{dotted(path)} asks for simulation {quoted(loss.simulation)}, not in `simulations`"
        words = tuple(islice(known, MOST_KNOWN))
        unknown = UnknownWord(missing, loss.simulation, words, "; there is none")
        yield Problem(mark_at(tree, (*path, "simulation")), unknown)


def _critic_is_there(tree: Keys, path: Keypath, loss: Any) -> Iterator[Problem]:
    section = tree.get("critic")
    if not (isinstance(loss, UsesCritic) and loss.needs_critic()):
        return
    if path[0] == "warm_start":
        yield Problem(mark_at(tree, path), f"{dotted(path)} asks for the critic, which the warm start has not yet")
    elif section is None or is_null(section):
        yield Problem(mark_at(tree, path), f"{dotted(path)} asks for the critic, but there is no `critic` section")


def _schedule_fits(tree: Keys, path: Keypath, simulation: Any, made: Callable[[], Schedule]) -> Iterator[Problem]:
    mark = mark_at(tree, path)
    try:
        for message in simulation.check_schedule(made()):
            yield Problem(mark, f"{dotted(path)}: {message}")
    except Exception as error:  # a plugin's own code, which may raise anything
        yield Problem(mark, f"{dotted(path)}: its check_schedule raised {type(error).__name__}: {reason(error)}")

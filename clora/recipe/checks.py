"""Mistakes that only show when a recipe's sections are seen together.

They are looked for among the parts that could be made, so that a misspelt key elsewhere does not hide them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from clora.errors import hint
from clora.flow import Schedule
from clora.protocols import UsesCritic, UsesSimulation
from clora.recipe.problems import Problem
from clora.recipe.schema import Student
from clora.recipe.tree import Keypath, Keys, is_null, mark_at


@frozen
class Parts:
    """What could be made of a recipe: components by their path, and the student's section unless it failed."""

    tree: Keys
    components: Mapping[Keypath, Any]
    student: Student | None


def cross_checks(parts: Parts) -> Iterator[Problem]:
    """Every contradiction between parts that are each right."""
    for path, component in parts.components.items():
        if path[-2:-1] == ("losses",):
            yield from _simulation_is_there(parts.tree, path, component)
            yield from _critic_is_there(parts.tree, path, component)
        elif path[0] == "simulations" and parts.student is not None:
            yield from _schedule_fits(parts.tree, path, component, parts.student)


def _simulation_is_there(tree: Keys, path: Keypath, loss: Any) -> Iterator[Problem]:
    if not isinstance(loss, UsesSimulation):
        return
    section = tree.get("simulations")
    entries = section.entries if isinstance(section, Keys) else {}
    known = [name for name, entry in entries.items() if not is_null(entry.value)]
    if loss.simulation not in known:
        missing = f"{'.'.join(path)} asks for simulation {loss.simulation!r}, not in `simulations`"
        advice = hint(loss.simulation, known) or "; there is none"
        yield Problem(mark_at(tree, (*path, "simulation")), missing + advice)


def _critic_is_there(tree: Keys, path: Keypath, loss: Any) -> Iterator[Problem]:
    section = tree.get("critic")
    if not (isinstance(loss, UsesCritic) and loss.needs_critic()):
        return
    if path[0] == "warm_start":
        yield Problem(mark_at(tree, path), f"{'.'.join(path)} asks for the critic, which the warm start has not yet")
    elif section is None or is_null(section):
        yield Problem(mark_at(tree, path), f"{'.'.join(path)} asks for the critic, but there is no `critic` section")


def _schedule_fits(tree: Keys, path: Keypath, simulation: Any, student: Student) -> Iterator[Problem]:
    mark = mark_at(tree, path)
    try:
        for message in simulation.check_schedule(Schedule.shifted(student.steps, student.shift)):
            yield Problem(mark, f"{'.'.join(path)}: {message}")
    except Exception as error:  # a plugin's own code, which may raise anything
        yield Problem(mark, f"{'.'.join(path)}: its check_schedule raised {type(error).__name__}: {error}")

"""What the losses find wrong in the course of a run, once it is finished: a sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clora.contracts.method import Alarms

if TYPE_CHECKING:
    from clora.contracts.values import StepReport
    from clora.planning.plan import Plan


def alarms(plan: Plan, steps: Sequence[StepReport]) -> tuple[str, ...]:
    """The sentences of every loss that follows `Alarms`, each with its name; none where nothing was trained."""
    recipe = plan.recipe
    critic = recipe.critic.losses if recipe.critic else {}
    found: list[str] = []
    for name, loss in {**recipe.losses, **{f"critic.{key}": loss for key, loss in critic.items()}}.items():
        if not isinstance(loss, Alarms):
            continue
        course: dict[str, list[tuple[float, float]]] = {}
        for step in steps:
            for log, value in step.logs.items():
                if log.startswith(f"{name}."):
                    course.setdefault(log.removeprefix(f"{name}."), []).append((step.step / recipe.train.steps, value))
        found += [f"{name}: {sentence}" for sentence in loss.alarms(course)]
    return tuple(found)

"""The warm start: before distribution matching one adapter learns the effects, and student and critic begin as it.

DMD starts its fake score at the teacher. With many teachers there is no one model to start at: a critic that begins as
the bare base knows no effect and stays behind at high noise, where it must know the effect to predict anything. An
adapter trained by plain flow matching on the teachers' outputs (3 forward-equivalents a row) is that one model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from clora.training.warm_recipe import warm_recipe

if TYPE_CHECKING:
    from clora.adapters.adapter import Adapter
    from clora.config.schema import WarmStart
    from clora.planning.plan import Plan
    from clora.training.checkpoint import State


def warm_plan(plan: Plan) -> Plan | None:
    """The plan of the warm start alone; None where the recipe has none."""
    warm = plan.recipe.warm_start
    if warm is None or plan.recipe.serve.adapter != "student":
        return None
    owners = plan.owners.within("warm_start")
    return evolve(plan, recipe=warm_recipe(plan.recipe, warm), digest=plan.warm, owners=owners)


def warm_folder(folder: Path) -> Path:
    """Where a run keeps its warm start: checkpoints, steps.jsonl, the adapter."""
    return folder / "warm_start"


def was_taken(folder: Path) -> bool:
    """True where a run's warm start was trained by a run beside it."""
    return not (warm_folder(folder) / "checkpoints").exists()


def hand_over(state: State, warm: Adapter, settings: WarmStart) -> None:
    """Put the warm start's weights into a fresh student, its average and, where asked for, every critic.

    Optimizers begin anew: their moments belong to another loss. A critic of a higher rank keeps its own draw of A in
    the rows beyond, where B is zero: it computes the same.
    """
    state.student.adapter.flat.copy_(warm.flat)
    if state.average is not None:
        state.average.adapter.flat.copy_(warm.flat)
    for critic in state.critics.values() if settings.critic else ():
        for module, (a, b, _) in critic.adapter.factors.items():
            learnt_a, learnt_b, _ = warm.factors[module]
            rank = len(learnt_a)
            a.data[:rank], b.data[:, :rank] = learnt_a, learnt_b

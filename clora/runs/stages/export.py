"""Export: the trained student, or the merged bank, as one LoRA file that says how to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clora.adapters.adapter import Adapter
from clora.adapters.answers import factors_problem
from clora.inference.session import read_adapter
from clora.lora_io.reader import deltas_of
from clora.lora_io.writer import write_lora
from clora.process.stopping import during
from clora.runs.run_dir import RunDir

if TYPE_CHECKING:
    from pathlib import Path

    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan


@during("while exporting", "everything up to the last checkpoint is kept")
def export(plan: Plan, session: ModelSession, folder: RunDir, student: Adapter | None) -> tuple[Path, ...]:
    """Write `export/lora.safetensors` and return it; with `serve.adapter: teachers` there is nothing to write.

    Raises CloraError where the folder cannot be written.
    """
    adapter = student
    if plan.recipe.serve.adapter == "merge":
        adapter = _merged(plan, session)
    if adapter is None:
        return ()
    header, dtype = plan.exported(folder.lora).header, getattr(torch, plan.recipe.export.dtype)
    write_lora(folder.lora, deltas_of(adapter.factors, session.shapes), header, dtype=dtype)
    return (folder.lora,)


def _merged(plan: Plan, session: ModelSession) -> Adapter:
    """The bank as one adapter, by the recipe's merger. Raises ComponentError where it gives none that fits the base."""
    teachers = [read_adapter(session, card.lora, card.scale, card.strength).factors for card in plan.cards]
    with plan.owners.calling("serve.merge"):
        made = plan.recipe.serve.merge.merge(teachers, session.shapes, plan.recipe.seed)
        problem = factors_problem(made, session.shapes)
    if problem is not None:
        raise plan.owners.error("serve.merge", problem)
    return Adapter.of(made)

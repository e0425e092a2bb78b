"""Export: the trained student (or the merged bank) as a bundle that carries all it takes to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clora.adapters.adapter import Adapter
from clora.bundle.bundle import add_pictures, write_bundle
from clora.errors import shown
from clora.lora_io.reader import LoraDelta, read_lora
from clora.runs.merging import merge
from clora.runs.files.checksums import Tell, make_way, warn
from clora.runs.files.tensors import read_tensors
from clora.runs.run_dir import RunDir
from clora.process.stopping import during
from clora.inference.session import read_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from clora.planning.plan import Plan
    from clora.inference.session import ModelSession


@during("while exporting", "everything up to the last checkpoint is kept")
def export(plan: Plan, session: ModelSession, folder: RunDir, student: Adapter | None) -> tuple[Path, ...]:
    """Write the bundle and return its files; with `serve.adapter: teachers` there is nothing to write.

    Raises CloraError where the folder cannot be written.
    """
    adapter = student
    if plan.recipe.serve.adapter == "merge":
        teachers = [read_adapter(session, card.lora, card.scale, card.strength) for card in plan.cards]
        adapter = merge(teachers, session.shapes, plan.recipe.serve.merge, plan.recipe.seed)
    if adapter is None:
        return ()
    deltas = {name: LoraDelta(a.detach(), b.detach(), scale) for name, (a, b, scale) in adapter.factors.items()}
    return write_bundle(plan, folder.lora.parent, deltas, getattr(torch, plan.recipe.export.dtype))


def export_again(plan: Plan, folder: RunDir, tell: Tell = warn) -> None:
    """Make what is damaged or missing of a finished bundle again from its LoRA, where that is as it was written."""
    marks = folder.marks()
    stage = marks.stages.get("export")
    if stage is None or stage.inputs != plan.digest or marks.problem(folder.path, folder.name(folder.lora)) is not None:
        return
    wrong = marks.damaged(folder.path, "export")
    if not wrong:
        return
    for name, problem in wrong.items():
        tell(f"{shown(folder.path / name)} {problem}; it is made again from {folder.lora.name}")
        make_way(folder.path / name, tell)
    deltas = read_lora(folder.lora, plan.recipe.backbone.shapes()).deltas
    lost = frozenset(folder.path / name for name in wrong)
    write_bundle(plan, folder.lora.parent, deltas, getattr(torch, plan.recipe.export.dtype), only=lost)
    folder.mark_done("export", plan.digest, tuple(folder.path / name for name in stage.outputs))


def illustrate(plan: Plan, folder: RunDir) -> tuple[Path, ...]:
    """Add to the bundle what the evaluation made, sample pictures and numbers; returns the files."""
    if not folder.lora.exists():
        return ()
    return add_pictures(plan, folder.lora.parent, read_tensors(folder.pictures), folder.read_results())

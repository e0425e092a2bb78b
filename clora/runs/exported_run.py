"""The LoRA of a finished run, for whoever writes it somewhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from clora.cli.recipes import plan_of_run
from clora.planning.export_files import WEIGHTS
from clora.runs.files.lock import held
from clora.runs.run_dir import RunDir

if TYPE_CHECKING:
    from clora.contracts.backbone import Backbone
    from clora.contracts.export import ExportedLora
    from clora.planning.plan import Plan


@frozen
class ExportedRun:
    """A finished run whose LoRA is as the run wrote it."""

    folder: RunDir  # of the run
    plan: Plan  # of its resolved recipe

    @classmethod
    def open(cls, path: Path) -> ExportedRun:
        """The run in a folder. Raises CloraError where there is none, or its LoRA is missing or has changed."""
        folder = RunDir(path)
        plan, _ = plan_of_run(folder)
        folder.check_lora()
        return cls(folder, plan)

    @property
    def lora(self) -> ExportedLora:
        """The LoRA, with its weights to read."""
        return self.plan.exported(self.folder.lora)

    @property
    def backbone(self) -> Backbone:
        """The model that the LoRA was trained on, not loaded."""
        return self.plan.recipe.backbone

    def owns(self, out: Path) -> bool:
        """Whether a folder is the run's own export."""
        return out.resolve() == self.folder.lora.parent.resolve()

    @contextmanager
    def writing(self, out: Path) -> Iterator[None]:
        """Within it no other process works in the run's folder, where `out` lies in that. Raises HeldError."""
        if not out.resolve().is_relative_to(self.folder.path.resolve()):
            yield
            return
        with held(self.folder.path):
            yield

    def write(self, out: Path, dtype: str | None = None) -> None:
        """Write the LoRA into a folder, stored as `dtype` or as it is, and what the recipe's exporters add to it.

        Raises CloraError where the folder cannot be written or the evaluation's files are damaged.
        """
        import torch

        from clora.lora_io.writer import write_lora
        from clora.runs.stages.exporters import files_about, files_beside, write_files

        path = out / WEIGHTS
        pictures = files_about(self.plan, self.folder, path) if self.folder.pictures.exists() else ()
        stored = None if dtype is None else getattr(torch, dtype)
        write_lora(path, self.lora.weights(), self.plan.exported(path).header, dtype=stored)
        write_files(self.plan, out, files_beside(self.plan, path))
        write_files(self.plan, out, pictures)

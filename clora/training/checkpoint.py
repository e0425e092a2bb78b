"""Checkpoints: whole or absent, exact to resume, safetensors and JSON alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from safetensors.torch import load_file, save_file

from clora.errors import CloraError
from clora.files import write_folder

if TYPE_CHECKING:
    from clora.training.optimizer import MovingAverage, Trained


@frozen
class State:
    """All that training changes: what a checkpoint holds."""

    student: Trained
    critic: Trained | None
    average: MovingAverage | None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor under a dotted name."""
        named = {f"student.{key}": value for key, value in self.student.state().items()}
        if self.critic is not None:
            named |= {f"critic.{key}": value for key, value in self.critic.state().items()}
        if self.average is not None:
            named["average.flat"] = self.average.adapter.flat
        return {key: value.contiguous() for key, value in named.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave, in place."""

        def part(owner: str) -> dict[str, torch.Tensor]:
            return {key.removeprefix(f"{owner}."): t for key, t in tensors.items() if key.startswith(f"{owner}.")}

        self.student.restore(part("student"))
        if self.critic is not None:
            self.critic.restore(part("critic"))
        if self.average is not None:
            self.average.adapter.flat.copy_(tensors["average.flat"])


class Checkpoints:
    """The checkpoints of one run, in `folder/<student updates done>/`."""

    def __init__(self, folder: Path, digest: str, keep: int) -> None:
        self.folder = folder
        self.digest = digest
        self.keep = keep

    def steps(self) -> list[int]:
        """The student updates at which whole checkpoints stand, rising."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())

    def save(self, step: int, state: State) -> Path:
        """Write the checkpoint of `step` student updates; older ones beyond `keep` go, after the new one is whole."""
        path = self.folder / f"{step:06d}"

        def fill(folder: Path) -> None:
            save_file(state.tensors(), folder / "state.safetensors")
            (folder / "state.json").write_text(json.dumps({"step": step, "digest": self.digest}))

        write_folder(path, fill)
        for torn in self.folder.glob(".*.tmp"):  # what a kill has left of one that was being written
            shutil.rmtree(torn, ignore_errors=True)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.folder / f"{old:06d}", ignore_errors=True)
        return path

    def resume(self, state: State) -> int:
        """Load the newest checkpoint into `state`; returns the student updates done, 0 where there is none.

        Raises CloraError where the checkpoint belongs to another recipe or is damaged.
        """
        steps = self.steps()
        if not steps:
            return 0
        path = self.folder / f"{steps[-1]:06d}"
        try:
            info = json.loads((path / "state.json").read_text())
            tensors = load_file(path / "state.safetensors")
            if info["digest"] != self.digest:
                raise CloraError(f"{path} was made by another recipe; choose another --run-dir")
            state.restore(tensors)
        except CloraError:
            raise
        except Exception as error:
            raise CloraError(
                f"checkpoint {path} cannot be read ({error}); remove that folder to go on from the one before"
            ) from error
        return steps[-1]

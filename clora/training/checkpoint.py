"""Checkpoints: whole or absent, exact to resume, safetensors alone, with step, recipe and checksum inside.

A folder's name is not believed. A damaged checkpoint is kept under another name, and the newest good one is taken.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import field, frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from clora.errors import CloraError, reason, shown
from clora.files.atomic import told_plainly, write_folder
from clora.files.untrusted_json import parse_json
from clora.runs.files.checksums import DamagedError, Tell, checksum_of_tensors, set_aside, warn
from clora.runs.files.fields import Fields
from clora.training.critics import SHARED
from clora.training.owned import OwnedParts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clora.training.optimizer import MovingAverage, TrainableAdapter

FILE = "state.safetensors"
#: the one key of the file's metadata; several would come in another order each time
_KEY = "clora.checkpoint"


@frozen
class State:
    """All that training changes: what a checkpoint holds."""

    student: TrainableAdapter
    critic: TrainableAdapter | None
    average: MovingAverage | None
    own: Mapping[str, TrainableAdapter] = field(factory=dict)  # the critics of simulations that have one, by adapter
    owned: OwnedParts = field(factory=OwnedParts)  # what components own beside their keys

    @property
    def critics(self) -> dict[str, TrainableAdapter]:
        """Every critic by its adapter, the shared one first."""
        return {} if self.critic is None else {SHARED: self.critic, **self.own}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor under a dotted name."""
        named = {f"student.{key}": value for key, value in self.student.state().items()}
        for name, critic in self.critics.items():
            named |= {f"{name}.{key}": value for key, value in critic.state().items()}
        if self.average is not None:
            named["average.flat"] = self.average.adapter.flat
        named |= self.owned.tensors()
        return {key: value.contiguous() for key, value in named.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave, in place."""

        def part(owner: str) -> dict[str, torch.Tensor]:
            return {key.removeprefix(f"{owner}."): t for key, t in tensors.items() if key.startswith(f"{owner}.")}

        self.student.restore(part("student"))
        for name, critic in self.critics.items():
            critic.restore(part(name))
        if self.average is not None:
            self.average.adapter.flat.copy_(tensors["average.flat"])
        self.owned.restore(tensors)


@frozen
class Stamp:
    """What a checkpoint says of itself."""

    step: int
    digest: str  # of the plan
    checksum: str

    @property
    def name(self) -> str:
        """What its folder should be called, and what the checksum begins with."""
        return f"{self.step:06d}"


def stamp_of(folder: Path) -> Stamp:
    """The stamp of a checkpoint whose tensors are as they were written. Raises DamagedError."""
    path = folder / FILE
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get(_KEY)
            if told is None:
                raise DamagedError(f"{shown(path)} is damaged: it has no checksum")
            where = f"{shown(path)}: what it says of itself"
            fields = Fields(parse_json(told, where), where)
            stamp = Stamp(fields.whole("step"), fields.text("digest"), fields.text("checksum"))
            found = checksum_of_tensors(_said(stamp), ((key, file.get_tensor(key)) for key in sorted(file.keys())))
    except DamagedError:
        raise
    except CloraError as error:
        raise DamagedError(str(error)) from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DamagedError(f"{shown(path)} is damaged ({reason(error)})") from None
    if found != stamp.checksum:
        raise DamagedError(f"{shown(path)} is damaged (its checksum is wrong)")
    return stamp


def newest_good(folder: Path) -> Path | None:
    """The file of the newest good checkpoint in a folder of checkpoints; for readers, which change nothing."""
    best: tuple[int, Path] | None = None
    for path in _folders(folder):
        try:
            step = stamp_of(path).step
        except DamagedError:
            continue
        if best is None or step > best[0]:
            best = step, path / FILE
    return None if best is None else best[1]


class Checkpoints:
    """The checkpoints of one run, in `folder/<student updates done>/`."""

    def __init__(self, folder: Path, digest: str, keep: int, tell: Tell = warn) -> None:
        self.folder = folder
        self.digest = digest
        self.keep = keep
        self.tell = tell
        self._good: set[int] = set()  # written or read through by this process

    def steps(self) -> list[int]:
        """The student updates at which checkpoints stand, by the names of their folders, rising."""
        return sorted(int(path.name) for path in _folders(self.folder))

    def save(self, step: int, state: State) -> Path:
        """Write the checkpoint of `step` student updates; older ones beyond `keep` go, after the new one is whole."""
        path = self.folder / f"{step:06d}"
        tensors = state.tensors()
        stamp = Stamp(step, self.digest, "")
        checksum = checksum_of_tensors(_said(stamp), sorted(tensors.items()))
        metadata = {_KEY: json.dumps({"step": step, "digest": self.digest, "checksum": checksum})}
        write_folder(path, lambda folder: save_file(tensors, folder / FILE, metadata))
        for torn in self.folder.glob(".*.tmp"):  # what a kill has left of one that was being written
            shutil.rmtree(torn, ignore_errors=True)
        self._good.add(step)
        oldest = sorted(self._good)[-self.keep :][0]
        if len(self._good) >= self.keep:  # one that nobody has read through is not counted on
            for old in (found for found in self.steps() if found < oldest):
                shutil.rmtree(self.folder / f"{old:06d}", ignore_errors=True)
        return path

    def resume(self, state: State) -> int:
        """Load the newest good checkpoint into `state`; returns the student updates done, 0 where there is none.

        Damaged ones are set aside as `NAME.damaged`, and told with what is lost; one in a folder of another name gets
        its own. Raises CloraError where the newest good one belongs to another recipe.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise CloraError(
                f"{shown(self.folder)} is a file, where the folder of the checkpoints belongs; move it away"
            )
        good, lost = self._sorted_out()
        if not good:
            if lost:
                self.tell(f"no checkpoint of {shown(self.folder)} is good: training begins again at update 0")
            return 0
        stamp, path = max(good, key=lambda one: one[0].step)
        if stamp.digest != self.digest:
            other = "another recipe, or by another version of its plugins"
            raise CloraError(f"{shown(path)} was made by {other}; choose another --run-dir")
        try:
            state.restore(load_file(path / FILE))
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise CloraError(
                f"checkpoint {shown(path)} cannot be read ({reason(error)}), though its checksum is right: it is of "
                "other shapes; choose another --run-dir"
            ) from error
        if lost > stamp.step:
            self.tell(
                f"training goes on from the checkpoint of update {stamp.step}; the {lost - stamp.step} updates up to "
                f"{lost} are made again"
            )
        self._good.add(stamp.step)
        return stamp.step

    def _sorted_out(self) -> tuple[list[tuple[Stamp, Path]], int]:
        """The good checkpoints, each in the folder of its step, and the last update that a wrong one stood for."""
        good: dict[int, tuple[Stamp, Path]] = {}
        misplaced: list[tuple[Stamp, Path]] = []
        lost = 0
        for path in _folders(self.folder):
            try:
                stamp = stamp_of(path)
            except DamagedError as error:
                lost = max(lost, int(path.name))
                self.tell(f"{error}; this checkpoint is kept as {set_aside(path).name}")
                continue
            if stamp.name == path.name:
                good[stamp.step] = stamp, path
            else:
                lost = max(lost, int(path.name))
                misplaced.append((stamp, path))
        # two may have changed places, so all leave theirs first
        for stamp, path, aside in [(stamp, path, set_aside(path)) for stamp, path in misplaced]:
            said = f"{shown(path)} holds the checkpoint of update {stamp.step}"
            if stamp.step in good:
                self.tell(f"{said}, which is there already; this one is kept as {aside.name}")
                continue
            right = path.with_name(stamp.name)
            with told_plainly(right):
                aside.rename(right)
            self.tell(f"{said} and is called {right.name} now")
            good[stamp.step] = stamp, right
        return list(good.values()), lost


def _folders(folder: Path) -> list[Path]:
    """What stands under the name of a step, rising; what a person has given another name is not looked at."""
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdecimal()]
    return sorted(named, key=lambda path: (int(path.name), path.name))


def _said(stamp: Stamp) -> str:
    """What the checksum covers beside the tensors."""
    return f"checkpoint of update {stamp.step} of {stamp.digest}"

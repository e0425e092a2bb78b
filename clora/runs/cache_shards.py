"""Tensors that are costly to make, kept on disk under keys: files of a few records each, every file with its checksum.

A file that is damaged, were it by a single bit, is found when it is first opened in a process, told in one line and
removed; whoever asks for its keys then finds them missing and makes them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from clora.errors import reason, shown
from clora.files.atomic import told_plainly
from clora.runs.files.checksums import DamagedError, Tell, make_way, warn
from clora.runs.files.leftovers import STALE, sweep
from clora.runs.files.tensors import check_tensors, write_tensors
from clora.runs.run_dir import digest_of

if TYPE_CHECKING:
    import torch

#: one thing that is kept: its tensors by name
Record = Mapping[str, "torch.Tensor"]


class Shards:
    """A folder of records; several processes may read and write it at once, as files come and go whole."""

    def __init__(self, folder: Path, tell: Tell = warn) -> None:
        self.folder = folder
        self.tell = tell
        self._files: dict[str, Path] = {}  # key -> the file that holds it
        self._sound: set[Path] = set()  # files whose checksum was right
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._files

    def refresh(self) -> None:
        """See what is there now; only the files' headers are read."""
        self._files = {}
        for path in self._all():
            try:
                with safe_open(path, "pt") as file:
                    names = list(file.keys())
            except (SafetensorError, OSError) as error:
                self._remove(path, error)
                continue
            self._files |= {name.rpartition(".")[0]: path for name in names}

    def check(self, keys: Iterable[str], part: int = 0, parts: int = 1) -> None:
        """Read the files that hold these keys through, or one part of several of them, and remove the damaged ones."""
        for path in sorted({self._files[key] for key in keys if key in self._files})[part::parts]:
            self._open(path)
        if part == 0:
            self._sweep()

    def read(self, key: str) -> Record | None:
        """The record of a key, on the CPU; None where it is not there, or was in a file that turns out damaged."""
        path = self._files.get(key)
        if path is None or not self._open(path):
            return None
        try:
            with safe_open(path, "pt") as file:
                names = [name for name in file.keys() if name.rpartition(".")[0] == key]  # noqa: SIM118 - no mapping
                # a copy: the file's own pages would be read again, or fault, if something cuts the file later
                return {name.rpartition(".")[2]: file.get_tensor(name).clone() for name in names}
        except (SafetensorError, OSError) as error:
            self._remove(path, error)
            return None

    def write(self, records: Mapping[str, Record]) -> None:
        """Keep some records as one file. Raises CloraError where the folder cannot be written or the disk is full."""
        tensors = {
            f"{key}.{name}": tensor.detach().cpu().contiguous()
            for key, record in records.items()
            for name, tensor in record.items()
        }
        path = self.folder / f"{digest_of(sorted(records))}.safetensors"
        write_tensors(path, tensors, self._place(path))
        self._files |= dict.fromkeys(records, path)
        self._sound.add(path)

    def _all(self) -> list[Path]:
        with told_plainly(self.folder):
            return sorted(self.folder.glob("*.safetensors"))

    def _open(self, path: Path) -> bool:
        """True if the file is sound; its numbers are read through once in a process."""
        if path in self._sound:
            return True
        try:
            check_tensors(path, self._place(path))
        except (DamagedError, FileNotFoundError) as error:
            self._remove(path, error)
            return False
        self._sound.add(path)
        return True

    def _place(self, path: Path) -> str:
        """What a file's checksum begins with: a file of another effect in its place would have the same keys."""
        return f"{self.folder.name}/{path.name}"

    def _remove(self, path: Path, why: Exception) -> None:
        self._files = {key: file for key, file in self._files.items() if file != path}
        if path.exists():
            said = str(why) if isinstance(why, DamagedError) else f"{shown(path)} is damaged ({reason(why)})"
            self.tell(f"{said}; what it held is made again")
            if path.is_dir():
                make_way(path, self.tell)
                return
            with told_plainly(path):
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove the temporary files that killed processes left; those of today's may be another process's."""
        sweep(self.folder, older=STALE)

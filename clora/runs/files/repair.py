"""What is put right in a run's folder before a process works in it; damage is told, leftovers alone are deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clora.errors import shown
from clora.runs.files.checksums import DamagedError, Tell, checksum_of_file, make_way, warn
from clora.runs.files.done_stages import Marks
from clora.runs.files.leftovers import STALE, sweep
from clora.runs.files.steps import mend_steps

if TYPE_CHECKING:
    from clora.runs.files.record import RunRecord
    from clora.runs.run_dir import RunDir


def mend(folder: RunDir, tell: Tell = warn) -> RunRecord | None:
    """Make a folder one that can be worked in; returns what it said of itself, None where that is not known.

    Only a process that holds the folder's lock may call this. Raises CloraError where the disk refuses.
    """
    sweep(folder.path)
    for shared in ("references", "digests", "teachers"):
        sweep(folder.cache / shared, older=STALE)
    for path in (folder.path / "run.json", folder.path / "stages.json", folder.recipe, folder.steps):
        make_way(path, tell)
    record = _record(folder, tell)
    _mend_marks(folder, record, tell)
    if record is not None:
        _look_at_recipe(folder, record, tell)
    mend_steps(folder.steps, tell=tell)
    return record


def _record(folder: RunDir, tell: Tell) -> RunRecord | None:
    again = "it is written again; how long the run has worked before is not known"
    try:
        return folder.read_info()
    except FileNotFoundError:
        if (folder.path / "stages.json").exists():
            tell(f"{shown(folder.path / 'run.json')} has gone; {again}")
    except DamagedError as error:
        tell(f"{error}; {again}")
    return None


def _mend_marks(folder: RunDir, record: RunRecord | None, tell: Tell) -> None:
    path = folder.path / "stages.json"
    again = "what is done already is found out again"
    try:
        folder.read_marks()
    except DamagedError as error:
        tell(f"{error}; {again}")
        folder.write_marks(Marks())
    if not path.exists():
        if record is not None:
            tell(f"{shown(path)} has gone; {again}")
        folder.write_marks(Marks())


def _look_at_recipe(folder: RunDir, record: RunRecord, tell: Tell) -> None:
    """Say where `recipe.yaml` is not what the run wrote; the caller writes it in any case."""
    again = "it is written again, from the recipe of this command"
    if not folder.recipe.exists():
        tell(f"{shown(folder.recipe)} has gone; {again}")
        return
    try:
        same = checksum_of_file(folder.recipe) == record.recipe
    except OSError as error:
        tell(f"{shown(folder.recipe)} cannot be read ({error.strerror}); {again}")
        return
    if not same:
        tell(f"{shown(folder.recipe)} has changed since it was written; {again}")

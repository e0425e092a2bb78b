"""What the recipe's exporters add beside the LoRA: files after the export, and more of them after the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import TYPE_CHECKING

from clora.contracts.export import EffectSamples, Evaluated
from clora.errors import CloraError, shown
from clora.files.atomic import write_atomic, write_atomic_with
from clora.planning.export_files import ExportFile, collisions, files_of
from clora.process.stopping import during
from clora.runs.files.checksums import Tell, make_way, warn
from clora.runs.files.tensors import read_tensors
from clora.runs.run_dir import RunDir, digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from clora.planning.plan import Plan

Files = Sequence[tuple[str, ExportFile]]


@during("while exporting", "the LoRA is kept")
def add_files(plan: Plan, folder: RunDir, tell: Tell = warn) -> None:
    """Have the exporters add their files, where these are not there already, from the same LoRA and keys.

    A file that is damaged or missing is written again. Raises ComponentError for an exporter that raises or gives what
    is no file, and CloraError where the folder cannot be written.
    """
    if plan.recipe.serve.adapter != "teachers":
        _carry_out(plan, folder, "exporters", (folder.lora,), lambda: files_beside(plan, folder.lora), tell)


@during("while illustrating the export", "everything up to the evaluation is kept")
def illustrate(plan: Plan, folder: RunDir, tell: Tell = warn) -> None:
    """Have the exporters add what they make of the evaluation's pictures and numbers. Raises as `add_files`."""
    if plan.recipe.serve.adapter != "teachers":
        inputs = (folder.lora, folder.results, folder.pictures)
        _carry_out(plan, folder, "illustrate", inputs, lambda: files_about(plan, folder, folder.lora), tell)


def files_beside(plan: Plan, lora: Path) -> Files:
    """The files that go beside a LoRA at some place. Raises ComponentError, and CloraError for names that collide."""
    files = files_of(plan.recipe.exporters, plan.owners, plan.exported(lora))
    for place, sentence in collisions(files):
        raise CloraError(f"{place}: {sentence}")
    return files


def files_about(plan: Plan, folder: RunDir, lora: Path) -> Files:
    """What is added to the same once the run is evaluated. Raises as `files_beside`."""
    found = files_of(plan.recipe.exporters, plan.owners, plan.exported(lora), _evaluated(plan, folder))
    own = {(name, file.place) for name, file in found}
    others = [(name, file) for name, file in files_beside(plan, lora) if (name, file.place) not in own]
    for place, sentence in collisions([*others, *found]):
        raise CloraError(f"{place}: {sentence}")
    return found


def write_files(plan: Plan, out: Path, files: Files, only: Container[str] | None = None) -> None:
    """Write the files, or `only` some of them, into the folder of a LoRA.

    Raises ComponentError where an exporter's function raises or writes no file, and CloraError where the disk refuses.
    """
    for name, file in files:
        if only is not None and name not in only:
            continue
        path = out / name
        if not path.parent.resolve().is_relative_to(out.resolve()):
            raise CloraError(f"{shown(path)} is not written: a link in its path leads out of the export's folder")
        with plan.owners.calling(file.place):
            if callable(file.contents):
                write_atomic_with(path, partial(_filled, name, file.contents))
            else:
                write_atomic(path, file.contents)


def _filled(name: str, write: Callable[[Path], None], temporary: Path) -> None:
    write(temporary)
    if temporary.is_symlink() or not temporary.is_file():
        raise ValueError(f"the contents of {name}: the function wrote no file at the path it was given")


def _carry_out(
    plan: Plan, folder: RunDir, stage: str, inputs: Sequence[Path], ask: Callable[[], Files], tell: Tell
) -> None:
    """Write a stage's files, all of them or those that are lost, and mark it done; files of before are removed."""
    marks, out = folder.marks(), folder.lora.parent
    before = marks.stages.get(stage)
    if before is None and not plan.recipe.exporters:
        return
    digest = digest_of([plan.exporters_digest, *(marks.files[folder.name(path)].blake2b for path in inputs)])
    lost = _lost(folder, stage, digest, tell)
    if lost is not None and not lost:
        return
    files = ask()
    names = {folder.name(out / name): name for name, _ in files}
    if lost is None or before is None or not lost <= names.keys():
        write_files(plan, out, files)
        stale = [name for name in (before.outputs if before else ()) if name not in names]
        for name in stale:
            if marks.problem(folder.path, name) is None:
                (folder.path / name).unlink()
    else:
        write_files(plan, out, files, only={names[name] for name in lost})
        names = {name: names[name] for name in before.outputs if name in names}
    folder.mark_done(stage, digest, tuple(folder.path / name for name in names))


def _lost(folder: RunDir, stage: str, digest: str, tell: Tell) -> frozenset[str] | None:
    """The outputs of a finished stage that are not as they were written; None where it is not done from these inputs.

    They are told, and a folder that stands in a file's place is moved aside.
    """
    marks = folder.marks()
    done = marks.stages.get(stage)
    if done is None or done.inputs != digest:
        return None
    wrong = marks.damaged(folder.path, stage)
    for name, problem in wrong.items():
        tell(f"{shown(folder.path / name)} {problem}; it is made again from {folder.lora.name}")
        make_way(folder.path / name, tell)
    return frozenset(wrong)


def _evaluated(plan: Plan, folder: RunDir) -> Evaluated:
    """The evaluation as it lies in the run's folder. Raises CloraError where there is none or it is damaged."""
    results, pictures = folder.read_results(), read_tensors(folder.pictures)
    samples = {
        card.name: EffectSamples(
            results.pictures.get(card.name, ()), pictures[f"{card.name}.source"], pictures[f"{card.name}.student"]
        )
        for card in plan.cards
    }
    return Evaluated(results.measured(), samples)

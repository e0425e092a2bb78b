"""Every file of a finished run is damaged in many ways: it is found, told by its name, and made again to the byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from attrs import field, frozen
from damage import RECIPE, SETS, WAYS, copy_of, damage
from PIL import Image

from clora.cli import main
from clora.config.load import load_recipe
from clora.config.schema import Start
from clora.errors import CloraError
from clora.planning.extension import start_problems
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.catalogue import Catalogue
from clora.plugin_system.discovery import discover
from clora.runs.job import Job
from clora.runs.pipeline import Pipeline
from clora.runs.progress import Progress
from clora.runs.run_dir import RunDir
from clora.training.distributed import Distributed

pytestmark = pytest.mark.slow(1)  # for the finished run that all of them need

#: for files that it takes long to make again: a way of each kind
FEW = ("middle byte flipped", "cut short", "a folder", "deleted")
#: their bytes tell when and how long, so they differ from run to run
TIMED = ("run/run.json", "run/stages.json", "run/steps.jsonl", "run/report.html")


@frozen
class Finished:
    """A finished run: its plan, the folder of runs around it, and every file's bytes by its path below that."""

    plan: Plan
    catalogue: Catalogue
    runs: Path
    files: dict[str, bytes] = field(factory=dict)

    def pipeline(self, runs: Path) -> Pipeline:
        return Pipeline(Job(self.plan, RunDir(runs / "run")), self.catalogue, Distributed(), Progress(on=False))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A whole run; the parts of its evaluation stay, as those of one that was killed do."""
    catalogue = discover()
    plan = make_plan(load_recipe(RECIPE, (), list(SETS), catalogue))
    made = Finished(plan, catalogue, tmp_path_factory.mktemp("finished") / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clora.runs.stages.evaluate.shutil.rmtree", lambda *_, **__: None)
        made.pipeline(made.runs).run()
    for path in sorted(path for path in made.runs.rglob("*") if path.is_file()):
        made.files[path.relative_to(made.runs).as_posix()] = path.read_bytes()
    return made


def kind(name: str) -> str:
    """What reads a file, and so finds its damage."""
    if name.startswith((".cache/targets", ".cache/digests")):
        return "prepare"
    if name.startswith(".cache/references") or "/parts/" in name:
        return "evaluate"
    return "resume" if "/checkpoints/" in name else "run"


def work(finished: Finished, runs: Path, how: str) -> Callable[[], object]:
    pipeline = finished.pipeline(runs)
    if how == "resume":  # the checkpoint is needed where the LoRA is lost
        pipeline.folder.lora.unlink()
    return {"prepare": pipeline.prepare, "evaluate": pipeline.evaluate_again}.get(how, pipeline.run)


def wrong_after(finished: Finished, runs: Path, name: str) -> list[str]:
    """What is not as in the undamaged run: another file's bytes, or an output that does not fit its mark."""
    skipped = (*TIMED, "run/checkpoints/000002")
    compared = [file for file in finished.files if not file.startswith(skipped) and "/parts/" not in file]
    found = [f for f in compared if not (runs / f).is_file() or (runs / f).read_bytes() != finished.files[f]]
    folder = RunDir(runs / "run")
    marks = folder.marks()
    wrong = [output for stage in marks.stages for output in marks.damaged(folder.path, stage)]
    assert {"export", "evaluate", "report"} <= set(marks.stages), name
    folder.info()
    folder.read_results()
    return [*found, *wrong]


def tell_name(name: str) -> str:
    """How a message names a file: a checkpoint by its folder."""
    return Path(name).parent.name if "/checkpoints/" in name else Path(name).name


def faults(finished: Finished, tmp_path: Path, cases: Iterable[tuple[str, str]], capsys) -> list[str]:
    """Do to a copy what each case says, let what reads the file read it, and list what goes wrong."""
    problems, runs = [], tmp_path / "runs"
    for name, way in cases:
        shutil.rmtree(runs, ignore_errors=True)
        damage(copy_of(finished.runs, runs) / name, way)
        do = work(finished, runs, kind(name))
        capsys.readouterr()
        try:
            do()
        except CloraError as error:
            if tell_name(name) not in str(error) or "cannot write" not in str(error):
                problems.append(f"{name}, {way}: refused with {error}")
            continue
        except Exception as error:
            problems.append(f"{name}, {way}: a traceback: {error!r}")
            continue
        said = capsys.readouterr().err
        if tell_name(name) not in said or len(said) > 3000:
            problems.append(f"{name}, {way}: told {said[:300]!r}")
        if wrong := wrong_after(finished, runs, name):
            problems.append(f"{name}, {way}: other bytes of {wrong}")
    return problems


def test_every_file_has_a_reader_in_this_table(finished: Finished) -> None:
    kinds = [kind(name) for name in finished.files]
    assert {kind: kinds.count(kind) for kind in kinds} == {"prepare": 4, "evaluate": 9, "resume": 2, "run": 19}
    assert len(finished.files) * len(WAYS) > 55


@pytest.mark.parametrize("name", ["run.json", "stages.json", "steps.jsonl", "recipe.yaml"])
def test_what_a_run_says_of_itself_is_written_again(finished: Finished, tmp_path: Path, capsys, name: str) -> None:
    ways = FEW if name == "stages.json" else WAYS  # without it all stages are done again
    assert faults(finished, tmp_path, [(f"run/{name}", way) for way in ways], capsys) == []


def test_damaged_marks_are_found_whatever_they_hold(finished: Finished, tmp_path: Path) -> None:
    for way in WAYS:
        folder = RunDir(copy_of(finished.runs, tmp_path / way) / "run")
        damage(folder.path / "stages.json", way)
        if (folder.path / "stages.json").exists():
            with pytest.raises(CloraError, match=r"stages\.json (is damaged|has changed)"):
                folder.stage_done("export", finished.plan.digest)
        else:
            assert not folder.stage_done("export", finished.plan.digest)


@pytest.mark.parametrize("where", ["run/export", "run/evaluate", "run/prepare", "run/report", ".cache"])
def test_what_is_derived_is_made_again(finished: Finished, tmp_path: Path, capsys, where: str) -> None:
    names = [name for name in finished.files if name.startswith(where)]
    cases = [(name, way) for i, name in enumerate(names) for way in some_ways(i, name)]
    assert faults(finished, tmp_path, cases, capsys) == []


def some_ways(number: int, name: str) -> Iterable[str]:
    """Two of the few ways, others for the next file; for a LoRA all of them.

    A file of the cache that has gone was never there, for all that anybody knows: it is made without a word.
    """
    ways = FEW[:-1] if name.startswith(".cache") or "/parts/" in name else FEW
    return FEW if name.endswith("lora.safetensors") else (ways[number % len(ways)], ways[(number + 2) % len(ways)])


def test_a_damaged_checkpoint_is_left_for_the_one_before(finished: Finished, tmp_path: Path, capsys) -> None:
    ways = ("middle byte flipped", "a folder", "deleted", "another of its kind")  # test_checkpoint.py has every way
    cases = [("run/checkpoints/000004/state.safetensors", way) for way in ways]
    assert faults(finished, tmp_path, cases, capsys) == []


def test_checkpoints_that_changed_places_train_to_the_same_end(finished: Finished, tmp_path: Path, capsys) -> None:
    runs = copy_of(finished.runs, tmp_path / "runs")
    folder = RunDir(runs / "run")
    (folder.path / "checkpoints/000004").rename(tmp_path / "new")
    (folder.path / "checkpoints/000002").rename(folder.path / "checkpoints/000004")
    finished.pipeline(runs).run()  # not read: all is done before
    folder.lora.unlink()
    finished.pipeline(runs).run()
    assert wrong_after(finished, runs, "checkpoints") == []
    assert "000004 holds the checkpoint of update 2" in capsys.readouterr().err


def test_a_bundle_is_made_again_from_its_lora_alone(finished: Finished, tmp_path: Path, capsys) -> None:
    """Nobody trains again for the sake of a copy, even where the checkpoints are gone."""
    runs = copy_of(finished.runs, tmp_path / "runs")
    folder = RunDir(runs / "run")
    shutil.rmtree(folder.path / "checkpoints")
    shutil.rmtree(folder.lora.parent / "scheduler")
    (folder.lora.parent / "lora_comfyui.safetensors").unlink()
    finished.pipeline(runs).run()
    assert not (folder.path / "checkpoints").exists()
    assert (folder.lora.parent / "lora_comfyui.safetensors").read_bytes() == finished.files[
        "run/export/lora_comfyui.safetensors"
    ]
    assert "lora_comfyui.safetensors has gone; it is made again from lora.safetensors" in capsys.readouterr().err


def test_a_lora_that_no_checkpoint_stands_for_is_trained_again_and_that_is_said(
    finished: Finished, tmp_path: Path, capsys
) -> None:
    runs = copy_of(finished.runs, tmp_path / "runs")
    folder = RunDir(runs / "run")
    shutil.rmtree(folder.path / "checkpoints")
    folder.lora.unlink()
    finished.pipeline(runs).run()
    assert wrong_after(finished, runs, "lora") == []
    assert "there is no checkpoint to make it from: training begins at update 0" in capsys.readouterr().err


READERS = {
    "sample": ("run/run.json", "run/stages.json", "run/recipe.yaml", "run/export/lora.safetensors"),
    "evaluate": ("run/run.json", "run/stages.json", "run/recipe.yaml", "run/export/lora.safetensors"),
    "export": (
        "run/run.json", "run/stages.json", "run/recipe.yaml", "run/export/lora.safetensors",
        "run/evaluate/pictures.safetensors", "run/evaluate/results.json",
    ),
    "extend": ("run/run.json", "run/stages.json", "run/recipe.yaml", "run/export/lora.safetensors"),
    "compare": ("run/run.json", "run/evaluate/results.json"),
}  # fmt: skip


@pytest.mark.parametrize("command", READERS)
def test_who_only_reads_a_run_is_told_what_is_damaged(finished: Finished, tmp_path: Path, capsys, command: str) -> None:
    Image.new("RGB", (32, 32), "white").save(tmp_path / "x.png")
    more = {
        "sample": ["--effect", "thermal", "--image", str(tmp_path / "x.png")],
        "export": ["--out", str(tmp_path / "out")],
        "extend": ["--bank", str(tmp_path / "bank.yaml")],
    }
    ways = WAYS if command == "compare" else FEW
    for name in READERS[command]:
        for way in ways:
            if command == "export" and name.startswith("run/evaluate") and way == "deleted":
                continue  # it has not been evaluated, then
            runs = copy_of(finished.runs, tmp_path / "runs")
            damage(runs / name, way)
            assert main([command, str(runs / "run"), *more.get(command, [])]) == 2, (name, way)
            said = capsys.readouterr().err
            assert tell_name(name) in said or "has not been evaluated" in said, (name, way, said)
            assert "Traceback" not in said
            assert len(said) < 1500
            shutil.rmtree(runs)


def test_a_damaged_run_is_not_extended(finished: Finished, tmp_path: Path) -> None:
    runs = copy_of(finished.runs, tmp_path / "runs")
    prompts = finished.plan.prompts
    assert list(start_problems(Start(run=runs / "run"), prompts)) == [
        "nothing is added: every effect of the banks is in the finished LoRA"
    ]
    damage(runs / "run/export/lora.safetensors", "middle byte flipped")
    (problem,) = start_problems(Start(run=runs / "run"), prompts)
    assert "lora.safetensors is damaged, or was changed, since it was written (its checksum is wrong)" in problem


def test_leftovers_of_killed_processes_go_and_what_a_kill_has_moved_comes_back(
    finished: Finished, tmp_path: Path
) -> None:
    runs = copy_of(finished.runs, tmp_path / "runs")
    run = runs / "run"
    leftovers = [".run.json.7-0123abcd.tmp", "export/.lora.safetensors.7-0123abcd.tmp", "evaluate/parts/.tmpAbC123"]
    for name in leftovers:
        (run / name).write_bytes(b"torn")
    torn = run / "checkpoints/.000006.7-0123abcd.tmp"
    torn.mkdir()
    (torn / "state.safetensors").write_bytes(b"torn")
    (run / "checkpoints/000004").rename(run / "checkpoints/.000004.7-0123abcd.old")
    (run / "checkpoints/000004-of-mine").mkdir()
    finished.pipeline(runs).run()
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000002", "000004", "000004-of-mine"]
    assert not (run / ".lock").exists()

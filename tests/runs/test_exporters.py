"""Exporters of every kind in a run: what they add, what is made again, and how a faulty one is told."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from safetensors.torch import load_file
from two_effects import RECIPE, SETS

from clora.api import Component, Evaluated, ExportedLora
from clora.cli import main
from clora.config.load import load_recipe
from clora.config.problems import RecipeError
from clora.errors import CloraError
from clora.planning.plan import Plan, make_plan, run_digest
from clora.plugin_system import discovery
from clora.plugin_system.catalogue import Catalogue, Plugin, Registered
from clora.plugin_system.guard import ComponentError
from clora.runs.job import make_job
from clora.runs.pipeline import Pipeline
from clora.runs.progress import Progress
from clora.runs.run_dir import RunDir
from clora.training.distributed import Distributed

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

#: what is asked how often
ASKED: list[str] = []


@frozen
class Notes:
    """An exporter of three files, and of one more after the evaluation."""

    text: str = "two effects"
    more: bool = True

    def export(self, lora: ExportedLora) -> Mapping[str, Any]:
        ASKED.append("export")
        files: dict[str, Any] = {"notes.txt": f"{self.text}: {', '.join(e.prompt for e in lora.effects)}\n"}
        if self.more:
            files |= {"data/raw.bin": b"\0\1", "data/linears.txt": lambda path: path.write_text(linears(lora))}
        return files

    def illustrate(self, lora: ExportedLora, evaluated: Evaluated) -> Mapping[str, Any]:
        ASKED.append("illustrate")
        shapes = {name: list(sample.result.shape) for name, sample in evaluated.samples.items()}
        return {"notes.txt": f"{self.text}: {shapes}\n", "after.txt": "made\n"}


def linears(lora: ExportedLora) -> str:
    return "\n".join(sorted(lora.weights()))


@frozen
class Faulty:
    """An exporter that breaks one rule."""

    how: str = "well"
    late: bool = False  # breaks it after the evaluation

    def files(self, lora: ExportedLora) -> Any:
        if self.how == "raises":
            raise ArithmeticError("no ink")
        link = lora.path.parent / "out"
        if self.how == "link" and lora.path.exists() and not link.exists():
            link.symlink_to(lora.path.parents[2], target_is_directory=True)
        return {
            "none": None,
            "list": ["a.txt"],
            "number": {7: "x"},
            "outside": {"../x.txt": "x"},
            "absolute": {"/elsewhere/x.txt": "x"},
            "windows": {"..\\x.txt": "x"},
            "hidden": {".x.txt": "x"},
            "empty": {"a//b": "x"},
            "itself": {"LORA.safetensors": "x"},
            "long": {"x" * 300: "x"},
            "contents": {"x.txt": 3.5},
            "many": {f"{i}.txt": "" for i in range(10_001)},
            "notes": {"NOTES.txt": "x"},
            "folder": {"notes.txt/x": "x"},
            "writer": {"x.txt": lambda path: 1 / 0},
            "unwritten": {"x.txt": lambda path: None},
            "link": {"out/x.txt": "x"},
            "well": {"x.txt": "x"},
        }[self.how]

    def export(self, lora: ExportedLora) -> Any:
        return {"y.txt": "y"} if self.late else self.files(lora)

    def illustrate(self, lora: ExportedLora, evaluated: Evaluated) -> Any:
        return self.files(lora) if self.late else {}


@frozen
class Without:
    """An exporter that has no method."""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """Every installed plugin, and one of this file."""
    found = discovery.discover()
    parts = {"notes": Notes, "faulty": Faulty, "without": Without}
    offered = tuple(
        Registered("mine", "clora-mine", "0.2.0", "exporters", Component(name, cls)) for name, cls in parts.items()
    )
    return evolve(found, plugins=(*found.plugins, Plugin("mine", "clora-mine", "0.2.0", "loaded", components=offered)))


def plan_of(catalogue: Catalogue, *sets: str) -> Plan:
    return make_plan(load_recipe(RECIPE, (), [*SETS, "warm_start=null", *sets], catalogue))


def carry_out(plan: Plan, catalogue: Catalogue, folder: Path) -> RunDir:
    return Pipeline(make_job(plan, catalogue, RunDir(folder)), catalogue, Distributed(), Progress(on=False)).run()


MINE = "exporters={bundle: null, mine: {use: notes}}"


@pytest.fixture(scope="module")
def finished(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    carry_out(plan_of(catalogue, MINE), catalogue, folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.parent, tmp_path / "runs")) / "run"


def files(run: Path) -> dict[str, bytes]:
    export = run / "export"
    return {p.relative_to(export).as_posix(): p.read_bytes() for p in sorted(export.rglob("*")) if p.is_file()}


def test_an_exporters_files_lie_beside_the_lora_and_are_marked(finished: Path) -> None:
    made = files(finished)
    assert set(made) == {"lora.safetensors", "notes.txt", "after.txt", "data/raw.bin", "data/linears.txt"}
    assert made["notes.txt"].decode() == "two effects: {'duotone_ocean': [1, 3, 32, 32], 'thermal': [1, 3, 32, 32]}\n"
    assert "transformer_blocks.0.attn.to_q" in made["data/linears.txt"].decode()
    stages = RunDir(finished).marks().stages
    assert stages["export"].outputs == ("export/lora.safetensors",)
    assert stages["exporters"].outputs == ("export/data/raw.bin", "export/data/linears.txt")
    assert stages["illustrate"].outputs == ("export/notes.txt", "export/after.txt")


def test_without_the_section_the_lora_is_written_alone(catalogue: Catalogue, run: Path) -> None:
    shutil.rmtree(run)
    carry_out(plan_of(catalogue, "exporters=null"), catalogue, run)
    assert set(files(run)) == {"lora.safetensors"}
    assert not {"exporters", "illustrate"} & set(RunDir(run).marks().stages)


def test_a_finished_run_asks_no_exporter_again(catalogue: Catalogue, run: Path) -> None:
    plan = plan_of(catalogue, MINE)
    ASKED.clear()
    carry_out(plan, catalogue, run)
    assert ASKED == []


@pytest.mark.parametrize(
    ("name", "asked"), [("data/raw.bin", ["export"]), ("notes.txt", ["illustrate", "export"]), ("after.txt", None)]
)
def test_a_damaged_file_is_made_again_and_no_other(
    catalogue: Catalogue, run: Path, finished: Path, name: str, asked: list[str] | None, capsys
) -> None:
    plan = plan_of(catalogue, MINE)
    (run / "export" / name).write_bytes(b"damaged")
    whole = {path: path.stat().st_mtime_ns for path in (run / "export").rglob("*") if path.name != Path(name).name}
    ASKED.clear()
    carry_out(plan, catalogue, run)
    assert files(run) == files(finished)
    assert f"{name} is damaged, or was changed, since it was written (" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in whole if path.is_file()} == {
        path: time for path, time in whole.items() if path.is_file()
    }
    assert asked is None or asked == ASKED


def test_another_key_of_an_exporter_trains_nothing_and_leaves_no_stale_file(catalogue: Catalogue, run: Path) -> None:
    plan, other = (
        plan_of(catalogue, MINE),
        plan_of(catalogue, "exporters={bundle: null, mine: {use: notes, text: mine, more: false}}"),
    )
    assert other.digest == plan.digest
    before = (run / "export/lora.safetensors").stat().st_mtime_ns
    carry_out(other, catalogue, run)
    assert set(files(run)) == {"lora.safetensors", "notes.txt", "after.txt"}
    assert files(run)["notes.txt"].startswith(b"mine: {")
    assert (run / "export/lora.safetensors").stat().st_mtime_ns == before
    (run / "export/after.txt").write_text("a person's own words")
    carry_out(plan_of(catalogue, "exporters=null"), catalogue, run)
    assert set(files(run)) == {"lora.safetensors", "after.txt"}  # nobody deletes what a person has written


def test_exporters_have_no_say_in_the_digest_of_run_and_warm_start(catalogue: Catalogue) -> None:
    words = [*SETS, "warm_start.updates=2"]
    bare, full = (
        load_recipe(RECIPE, (), [*words, f"exporters={section}"], catalogue) for section in ("null", "{a: notes}")
    )
    assert run_digest(bare) == run_digest(full)
    plans = [make_plan(each, thorough=False) for each in (bare, full)]
    assert plans[0].warm == plans[1].warm != ""
    assert plans[0].exporters_digest != plans[1].exporters_digest
    assert "exporters.a" in plans[1].code


def test_the_title_is_in_the_files_and_so_in_their_digest(catalogue: Catalogue) -> None:
    plans = [plan_of(catalogue, MINE, f"title={title}") for title in ("One", "Two")]
    assert plans[0].digest == plans[1].digest
    assert plans[0].exporters_digest != plans[1].exporters_digest


TOLD = r"exporters\.bad \(faulty of clora-mine 0\.2\.0, --set exporters.*\): "


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("raises", r"ArithmeticError: no ink at test_exporters\.py:\d+"),
        ("none", "gave None; expected a mapping of files' names to their contents"),
        ("list", r"gave list .*; expected a mapping"),
        ("number", "gave a file named 7, which is no text"),
        ("outside", r"gave a file named '\.\./x\.txt', which lies outside the export's folder"),
        ("absolute", "lies outside the export's folder"),
        ("windows", "lies outside the export's folder"),
        ("hidden", "has a part that is empty or begins with a dot"),
        ("empty", "has a part that is empty or begins with a dot"),
        ("itself", "which is the LoRA itself"),
        ("long", "is too long"),
        ("contents", r"gave float '?3\.5'? as the contents of 'x\.txt'; expected text, bytes or a function"),
        ("many", "gave 10,001 files; at most 10,000 are written"),
    ],
)
def test_a_faulty_exporter_is_told_before_anything_is_trained(catalogue: Catalogue, how: str, sentence: str) -> None:
    with pytest.raises(ComponentError, match=TOLD + ".*" + sentence) as told:
        plan_of(catalogue, f"exporters={{bad: {{use: faulty, how: {how}}}}}")
    assert told.value.exit_code == 1


@pytest.mark.parametrize("how", ["notes", "folder"])
def test_two_exporters_of_one_name_are_a_mistake_of_the_recipe(catalogue: Catalogue, how: str) -> None:
    with pytest.raises(RecipeError, match=r"exporters\.bad: its file .* collides with one of exporters\.mine"):
        plan_of(catalogue, f"exporters={{mine: notes, bad: {{use: faulty, how: {how}}}}}")


@pytest.mark.parametrize(
    ("how", "late", "sentence"),
    [
        ("writer", False, TOLD + r"ZeroDivisionError: division by zero at test_exporters\.py:\d+"),
        ("unwritten", False, TOLD + r"ValueError: the contents of x\.txt: the function wrote no file"),
        ("link", False, r"out/x\.txt is not written: a link in its path leads out of the export's folder"),
        ("raises", True, TOLD + "ArithmeticError: no ink"),
        ("outside", True, TOLD + "gave a file named"),
        ("notes", True, r"exporters\.bad: its file 'NOTES\.txt' collides with one of exporters\.mine"),
    ],
)
def test_what_goes_wrong_after_training_keeps_the_lora_and_a_repaired_exporter_goes_on(
    catalogue: Catalogue, run: Path, how: str, late: bool, sentence: str
) -> None:
    lora = (run / "export/lora.safetensors").read_bytes()
    plan = plan_of(catalogue, f"exporters={{mine: notes, bad: {{use: faulty, how: {how}, late: {late}}}}}".lower())
    with pytest.raises(CloraError, match=sentence):
        carry_out(plan, catalogue, run)
    assert not (run.parent / "x.txt").exists()
    assert not list(run.rglob(".*.tmp"))
    assert (run / "export/lora.safetensors").read_bytes() == lora
    (run / "export/out").unlink(missing_ok=True)
    carry_out(plan_of(catalogue, "exporters={mine: notes, bad: {use: faulty}}"), catalogue, run)
    assert files(run)["x.txt"] == b"x"
    assert files(run)["lora.safetensors"] == lora


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ("{a: bundel}", "exporters has no component 'bundel'; did you mean 'bundle'?"),
        ("{a: {use: bundle, picture: 2}}", "unknown key 'picture' in exporters.a; did you mean 'pictures'?"),
        ("{a: {use: bundle, pictures: 0}}", "exporters.a.pictures must be between 1 and 100"),
        ("{a: {use: without}}", "'Without' is no Exporter: it has no export"),
        ("[bundle]", "exporters: expected a mapping of name"),
    ],
)
def test_a_mistake_in_the_section_is_told_at_its_place(catalogue: Catalogue, section: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as told:
        plan_of(catalogue, f"exporters={section}")
    assert sentence in str(told.value)


def test_the_lora_is_stored_in_the_recipes_type(catalogue: Catalogue, tmp_path: Path) -> None:
    from clora.adapters.adapter import Adapter
    from clora.inference.session import ModelSession
    from clora.runs.stages.export import export

    plan = plan_of(catalogue, "export.dtype=bfloat16")
    session = ModelSession(plan)
    name, (inputs, outputs) = next(iter(session.shapes.items()))
    adapter = Adapter.of({name: (torch.ones(2, inputs), torch.ones(outputs, 2), 0.5)})
    (path,) = export(plan, session, RunDir(tmp_path), adapter)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.bfloat16}


def test_the_command_line_tells_a_faulty_exporter_in_one_line(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(discovery, "discover", lambda: catalogue)
    sets = [word for text in (*SETS, "exporters={bad: {use: faulty, how: raises}}") for word in ("--set", text)]
    assert main(["validate", str(RECIPE), *sets]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "exporters.bad (faulty of clora-mine 0.2.0, --set exporters" in told

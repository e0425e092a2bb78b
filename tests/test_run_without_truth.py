"""A run whose metrics know no truth: measured against the teacher's pictures, reported, compared picture by picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from attrs import evolve
from clora_studies.comparison import compare, read_runs

from clora.cli import main
from clora.runs.regression import changes
from clora.runs.run_dir import RunDir

RECIPE = Path(__file__).parents[1] / "recipes/effect_lora.yaml"
SMALL = [
    "effects=[duotone_ocean, thermal]",
    "serve.prompts=student",  # words that the teachers do not know, so that their pictures are not the same
    "teacher.steps=2",
    "evaluate.images=3",
    "evaluate.general_images=2",
    "metrics.truth=null",
    "metrics.to_teacher=to_teacher",
]


def words(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders") / "tiny_dino"
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
    Dinov2Model(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    more = f"metrics.dino={{use: similarity, model: {encoder}, label: dino}}"
    folder = runs / "one"
    assert main(["run", str(RECIPE), "--run-dir", str(folder), "--quiet", *words(more)]) == 0
    return folder


def test_every_metric_adds_its_columns(run: Path):
    results = json.loads((run / "evaluate/results.json").read_text())
    columns = {"to_teacher", "undone_rate", "dino_to_teacher_cos", "dino_to_source_cos"}
    assert set(results["values"]) == columns | {"general_drift", "teacher_dino_to_source_cos"}
    assert results["values"]["to_teacher"] > 0.01, "other words must have made other pictures"
    assert results["values"]["general_drift"] == 0, "the served base is the base"
    better = {name: quantity["better"] for name, quantity in results["quantities"].items()}
    assert {name for name in better if better[name] == "lower"} == {"to_teacher", "undone_rate", "general_drift"}
    assert better.keys() == results["values"].keys()
    assert set(results["per_picture"]["thermal"]) == columns
    assert results["matrices"]["nearest_teacher"]["columns"] == ["duotone_ocean", "thermal", "source"]


def test_the_report_leads_with_the_teacher(run: Path):
    html = (run / "report.html").read_text()
    head = html[html.index("<h1>") : html.index("<nav")]
    undone = json.loads((run / "evaluate/results.json").read_text())["values"]["undone_rate"]
    assert f"{1 - undone:.0%} of the test pictures come nearer to their teacher&#x27;s picture" in head
    assert [head.count(f"<dt>{name} ") for name in ("to teacher", "undone rate", "general drift")] == [1, 1, 1]
    assert "Nearest teacher, per cent of each row" in html
    assert "dino to source cos" in html


def test_runs_are_compared_by_it_with_the_right_side_up(run: Path):
    table = compare(read_runs([run]))
    assert "to_teacher" in table.columns
    before = RunDir(run).read_results()
    thermal = dict(before.per_picture["thermal"])
    thermal["to_teacher"] = tuple(value + 1 for value in thermal["to_teacher"])
    thermal["dino_to_source_cos"] = tuple(value - 0.5 for value in thermal["dino_to_source_cos"])
    after = evolve(before, per_picture={**before.per_picture, "thermal": thermal})
    worse = {(change.effect, change.metric) for change in changes(before, after) if change.worse}
    assert worse == {("thermal", "to_teacher"), ("thermal", "dino_to_source_cos")}


def test_all_that_metrics_lack_is_told_before_anything_is_loaded(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    more = ["evaluate.teacher=false", f"metrics.a={{use: similarity, model: {tmp_path / 'gone'}}}"]
    more += [f"metrics.b={{use: similarity, model: {tmp_path / 'gone'}}}"]
    assert main(["validate", str(RECIPE), *words(*more)]) == 2
    told = capsys.readouterr().err
    assert "metrics.to_teacher: the student is compared with its teachers' pictures, which are not made" in told
    assert told.count("is no folder and no Hub id") == 2
    assert told.count("two metrics call their columns 'gone'") == 2

"""`clora run` as a user meets it: a whole small run on the emoji world, killed and gone on with.

Those that are killed are processes of their own; every other command runs in this one, the run that they are compared
with too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from in_process import clora
from safetensors import safe_open
from safetensors.torch import load_file
from shallow_emoji import shallow_emoji

ROOT = Path(__file__).parents[1]
SMALL = {
    "effects": "[{first}, {second}]",
    "student.rank": "4",
    "student.steps": "3",
    "train.steps": "6",
    "warm_start": "null",
    "train.batch_size": "4",
    "train.checkpoint_every": "2",
    "teacher.steps": "2",
    "prepare": "{{previews: 1, train_images: 3, general_images: 6}}",
    "evaluate": "{{images: 2, general_images: 2}}",
}


def bank() -> list[str]:
    text = (ROOT / "plugins/clora_emoji/assets/teachers/bank.yaml").read_text()
    return [line.split("name:")[1].strip() for line in text.splitlines() if "name:" in line]


def command(recipe: str | Path, runs: Path, *more: str, **changed: str) -> list[str]:
    first, second = bank()[:2]
    settings = {key: value.format(first=first, second=second) for key, value in (SMALL | changed).items()}
    lines = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
    sets = [word for line in (*shallow_emoji(), *lines) for word in ("--set", line)]
    return ["run", str(ROOT / "recipes" / recipe), "--runs", str(runs), *sets, *more]


def started(words: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([sys.executable, "-m", "clora", *words], env=environment, stderr=subprocess.PIPE, text=True)


def only_run(runs: Path) -> Path:
    (folder,) = (path for path in runs.iterdir() if not path.name.startswith("."))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of the whole method."""
    runs = tmp_path_factory.mktemp("runs")
    done = clora(*command("collection.yaml", runs))
    assert done.returncode == 0, done.stderr
    return only_run(runs)


@pytest.mark.slow(8)
def test_a_run_leaves_one_lora_numbers_and_a_report(finished: Path) -> None:
    results = json.loads((finished / "evaluate/results.json").read_text())
    assert 0.0 <= results["values"]["bad_case_rate"] <= 1.0
    assert len((finished / "steps.jsonl").read_text().splitlines()) == 6
    assert "<html" in (finished / "report.html").read_text()
    with safe_open(finished / "export/lora.safetensors", "pt") as file:
        how = json.loads(file.metadata()["clora"])
        assert list(how["effects"]) == bank()[:2]
        assert how["guidance_scale"] == 1.0
        assert len(how["sigmas"]) == how["steps"] == 3
        assert "transformer.transformer_blocks.0.attn.to_q.lora_A.weight" in set(file.keys())


@pytest.mark.slow
def test_the_same_command_again_does_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.suffix in (".safetensors", ".html")}
    again = clora(*command("collection.yaml", finished.parent))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("done before") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow(8)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_and_ends_bit_identical(finished: Path, tmp_path: Path, how: signal.Signals) -> None:
    shutil.copytree(finished.parent / ".cache", tmp_path / ".cache")  # it is stopped in training
    words = command("collection.yaml", tmp_path)
    process = started(words)
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("*/checkpoints/00000[2345]")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    if how == signal.SIGINT and process.returncode != 0:  # it may have been at its very last update
        assert process.returncode == 130
        assert "stopped by SIGINT" in said
        assert "The same command goes on" in said
        assert "Traceback" not in said
    done = clora(*words)
    assert done.returncode == 0, done.stderr
    ours, theirs = (load_file(path / "export/lora.safetensors") for path in (only_run(tmp_path), finished))
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in ours)
    results = [(path / "evaluate/results.json").read_text() for path in (only_run(tmp_path), finished)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_sample_uses_the_export_and_chains_effects(finished: Path, tmp_path: Path) -> None:
    from PIL import Image

    source = tmp_path / "x.png"
    Image.new("RGB", (50, 40), (200, 80, 20)).save(source)
    first, second = bank()[:2]
    out = tmp_path / "both.png"
    effects = ["--effect", first, "--effect", second]
    done = clora("sample", str(finished), *effects, "--image", str(source), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert Image.open(out).size == (32, 32)
    other = tmp_path / "passes.png"
    done = clora("sample", str(finished), *effects, "--passes", "--image", str(source), "--out", str(other))
    assert done.returncode == 0, done.stderr
    assert Image.open(other).tobytes() != Image.open(out).tobytes()
    alone = clora("sample", str(finished), "--effect", first, "--passes", "--image", str(source))
    assert alone.returncode == 2
    assert "--passes needs two effects" in alone.stderr
    wrong = clora("sample", str(finished), "--effect", first[:-1], "--image", str(source))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert f"did you mean {first!r}?" in wrong.stderr


@pytest.mark.slow
def test_evaluate_again_gives_the_same_numbers(finished: Path) -> None:
    before = (finished / "evaluate/results.json").read_text()
    assert clora("evaluate", str(finished), "--quiet").returncode == 0
    assert (finished / "evaluate/results.json").read_text() == before


def test_an_unwritable_folder_is_told(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    done = clora(*command("collection.yaml", blocker))
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_another_report_of_a_finished_run_trains_and_measures_nothing(finished: Path) -> None:
    done = clora(*command("collection.yaml", finished.parent, reporters__page__file="other.html"))
    assert done.returncode == 0, done.stderr
    assert "train, export: done before" in done.stderr
    assert "evaluate: done before" in done.stderr
    assert str(only_run(finished.parent) / "other.html") in done.stdout
    assert (finished / "other.html").read_text() != ""
    for said in (1, 0):  # once, and not again where nothing has changed
        bare = clora(*command("collection.yaml", finished.parent, reporters="null"))
        assert bare.returncode == 0, bare.stderr
        assert bare.stderr.count("no report: the recipe has no reporters") == said
        assert "other.html" not in bare.stdout


def test_a_file_of_the_runs_own_is_refused_as_a_report_at_its_place(tmp_path: Path) -> None:
    done = clora(*command("collection.yaml", tmp_path, reporters__page__file="run.json"))
    assert done.returncode == 2
    assert "reporters.page: its file 'run.json' would stand where the run writes 'run.json'" in done.stderr
    assert done.stderr.startswith("--set reporters.page.file: ")
    assert list(tmp_path.iterdir()) == []

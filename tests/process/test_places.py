"""SIGINT, SIGTERM and SIGHUP at every place of a run and in every other command: what is said, what is kept."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import RECIPE, check_same, only_run, run_words

from clora import cli
from clora.process.stopping import HANDLED

#: where a run is stopped, in the order in which it comes there: module, attribute, which call, what is said
PLACES = (
    ("clora.cli.run", "planned", 1, "; nothing was changed"),
    ("clora.runs.pipeline", "write_atomic", 1, "; what is made is kept. The same command goes on from here"),
    (
        "clora.runs.stages.targets",
        "Bank.make",
        1,
        " while preparing; what is encoded and what the teachers have made is",
    ),
    (
        "clora.runs.stages.prepare",
        "write_previews",
        1,
        " while preparing; what is encoded and what the teachers have made",
    ),
    ("clora.training.start", "make_state", 1, " while training; everything up to the last checkpoint is kept"),
    (
        "clora.training.trainer",
        "Trainer.cycle",
        1,
        " while training; the checkpoint of update 1 is saved. The same command",
    ),
    ("clora.training.loop", "StepLog.add", 1, " while training; the checkpoint of update 2 is saved. The same command"),
    ("clora.training.loop", "StepLog.add", 1, " while training; the checkpoint of update 3 is saved. The same command"),
    ("clora.runs.stages.export", "write_lora", 1, " while exporting; everything up to the last checkpoint is kept"),
    ("clora.runs.stages.exporters", "files_of", 1, " while exporting; the LoRA is kept. The same command goes on"),
    ("clora.runs.stages.evaluate", "Maker.effect", 1, " while evaluating; everything up to the export is kept"),
    ("clora.runs.stages.evaluate", "Maker.general", 1, " while evaluating; everything up to the export is kept"),
    (
        "clora.runs.stages.exporters",
        "files_about",
        1,
        " while illustrating the export; everything up to the evaluation is kept",
    ),
    (
        "clora.runs.stages.report",
        "told_by",
        1,
        " while the report was made; everything up to the evaluation is kept",
    ),
    ("clora.cli.run", "headline", 1, "; what is made is kept. The same command goes on from here"),
)


def signal_at(
    monkeypatch: pytest.MonkeyPatch, module: str, attribute: str, number: int, call: int = 1, times: int = 1
) -> None:
    """Have a function send its own process a signal when it is called for the `call`-th time."""
    owner = importlib.import_module(module)
    *path, name = attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), []

    def signalled(*args, **keywords):
        calls.append(1)
        if len(calls) == call:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return real(*args, **keywords)

    monkeypatch.setattr(owner, name, signalled)


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    """Whatever happens in a command, afterwards the signals have the handlers of before."""
    before = [signal.getsignal(number) for number in HANDLED]
    yield
    assert [signal.getsignal(number) for number in HANDLED] == before


def check_told(said: str, number: signal.Signals, words: str) -> None:
    last = said.splitlines()[-1]
    assert last.startswith(f"stopped by {number.name}{words}"), said
    assert said.count("stopped by") == 1
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(len(HANDLED)))
def test_a_run_that_is_stopped_at_every_place_ends_bit_identical(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], turn: int
) -> None:
    for place, (module, attribute, call, words) in enumerate(PLACES):
        number = HANDLED[(turn + place) % len(HANDLED)]
        with pytest.MonkeyPatch.context() as monkeypatch:
            # a launcher passes on to every process what the terminal has sent to all of them: often twice
            signal_at(monkeypatch, module, attribute, number, call, times=1 + place % 2)
            assert cli.main([*run_words(tmp_path), *["--quiet"] * (place % 3 == 0)]) == 128 + number, (place, words)
        check_told(capsys.readouterr().err, number, words)
    assert cli.main(run_words(tmp_path)) == 0
    check_same(only_run(tmp_path), finished)
    assert not list(tmp_path.rglob(".*.tmp"))


@pytest.mark.slow
def test_a_signal_while_the_last_checkpoint_is_saved_is_not_forgotten(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.parent / ".cache", tmp_path / ".cache")
    signal_at(monkeypatch, "clora.training.checkpoint", "Checkpoints.save", signal.SIGTERM, call=2)
    assert cli.main(run_words(tmp_path)) == 143
    check_told(capsys.readouterr().err, signal.SIGTERM, " while training; everything up to the last checkpoint is kept")
    assert (only_run(tmp_path) / "checkpoints/000003").exists()
    assert not (only_run(tmp_path) / "export").exists()


NOTHING = "; nothing was changed"


def others(run: Path, out: Path) -> list[tuple[list[str], str, str, str]]:
    """Other commands, a place in each, and what is said there."""
    lora, picture = run / "export/lora.safetensors", run / "prepare/duotone_ocean.png"
    evaluating = " while evaluating; everything up to the export is kept, and the pictures made so far"
    sample = ["sample", str(run), "--effect", "duotone_ocean", "--image", str(picture), "--out", str(out / "x.png")]
    prepare = ["prepare", *run_words(out)[1:]]
    return [
        (["validate", str(RECIPE)], "clora.planning.cost", "cost", NOTHING),
        (["show", str(RECIPE)], "clora.cli.show", "loaded", NOTHING),
        (["plugins"], "clora.plugin_system.discovery", "discover", NOTHING),
        (["inspect", str(lora)], "clora.lora_io.survey", "survey", NOTHING),
        (["compare", str(run)], "clora_studies.compare_command", "read_runs", NOTHING),
        (prepare, "clora.runs.stages.targets", "Bank.make", " while preparing; what is encoded and what the teachers"),
        (["evaluate", str(run)], "clora.runs.stages.evaluate", "Maker.effect", evaluating),
        (
            ["evaluate", str(run)],
            "clora.runs.stages.report",
            "told_by",
            " while the report was made; everything up to",
        ),
        (sample, "clora.inference.edit_sampler", "Editor.edit", "; no picture was written. The same command makes it"),
        (
            ["export", str(run), "--out", str(out / "bundle")],
            "clora.lora_io.writer",
            "write_lora",
            "; every file that is whole stays. The same command writes them all",
        ),
    ]


@pytest.mark.slow
def test_every_other_command_stops_and_says_what_is_kept(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for turn, (words, module, attribute, told) in enumerate(others(finished, tmp_path)):
        number = HANDLED[turn % len(HANDLED)]
        with pytest.MonkeyPatch.context() as monkeypatch:
            signal_at(monkeypatch, module, attribute, number)
            assert cli.main(words) == 128 + number, words
        check_told(capsys.readouterr().err, number, told)
    assert not (tmp_path / "x.png").exists()
    assert cli.main(["evaluate", str(finished), "--quiet"]) == 0


def test_a_command_outside_the_main_thread_leaves_the_signals_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, ["show", str(RECIPE)]).result() == 0
    assert capsys.readouterr().err == ""

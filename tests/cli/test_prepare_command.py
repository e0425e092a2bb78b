"""`clora prepare`: makes what a run needs, says where to look, and goes on after Ctrl-C and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shallow_emoji import shallow_emoji

from clora import cli
from clora.runs.stages import targets

RECIPE = Path(__file__).parents[2] / "recipes/collection.yaml"
SETS = (
    *shallow_emoji(),
    "effects=[duotone_ocean, thermal]",
    "student.rank=2",
    "student.steps=3",
    "train.steps=1",
    "warm_start=null",
    "train.batch_size=2",
    "teacher.steps=2",
    "prepare.train_images=6",
    "prepare.batch_size=2",
    "prepare.previews=1",
    "evaluate.images=1",
    "evaluate.general_images=1",
)


def words(command: str, runs: Path, *more: str) -> list[str]:
    sets = [word for text in (*SETS, *more) for word in ("--set", text)]
    return [command, str(RECIPE), *sets, "--runs", str(runs)]


def outputs(runs: Path) -> dict[str, bytes]:
    files = (runs / ".cache/targets").rglob("*.safetensors")
    return {str(path.relative_to(runs)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_it_says_what_it_made_where_to_look_and_how_to_go_on(tmp_path: Path, capsys) -> None:
    world = ["--world", str(RECIPE.parent / "worlds/emoji.yaml")]
    assert cli.main([*words("prepare", tmp_path), *world]) == 0
    said = capsys.readouterr()
    assert "12 of 12 teacher outputs to make" in said.err
    assert "teacher outputs 12 of 2 effects" in said.out
    (folder,) = (path for path in tmp_path.iterdir() if path.name != ".cache")
    assert str(folder / "prepare") in said.out
    assert (folder / "prepare/thermal.png").exists()
    assert not (folder / "export").exists()
    assert cli.main([*words("prepare", tmp_path), *world]) == 0
    again = capsys.readouterr()
    assert "to make" not in again.err
    assert again.out == said.out
    # the command that it names goes on in the same folder and makes nothing anew
    go_on = said.out.split("clora run ")[1].splitlines()[0]
    import shlex

    assert " ".join(world) in go_on
    before = outputs(tmp_path)
    assert cli.main(["run", *shlex.split(go_on)]) == 0
    assert "to make" not in capsys.readouterr().err
    assert (folder / "export/lora.safetensors").exists()
    assert outputs(tmp_path) == before


def test_ctrl_c_keeps_what_is_made(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = targets.Bank.make, []

    def until_the_fourth(bank: targets.Bank, chunk: targets.Chunk) -> None:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(chunk)
        real(bank, chunk)

    monkeypatch.setattr(targets.Bank, "make", until_the_fourth)
    for command in ("prepare", "run"):
        assert cli.main(words(command, tmp_path)) == 130
        said = capsys.readouterr().err
        assert "what the teachers have made is kept. The same command goes on" in said
        assert "Traceback" not in said
    assert len(outputs(tmp_path)) == 3


@pytest.mark.slow
def test_a_killed_prepare_leaves_nothing_torn_and_goes_on(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    called = [sys.executable, "-m", "clora", *words("prepare", tmp_path / "killed", "teacher.steps=8")]
    process = subprocess.Popen(called, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(outputs(tmp_path / "killed")) < 2:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    first = outputs(tmp_path / "killed")
    assert 2 <= len(first) < 6
    assert cli.main(words("prepare", tmp_path / "killed", "teacher.steps=8")) == 0
    assert cli.main(words("prepare", tmp_path / "whole", "teacher.steps=8")) == 0
    assert first.items() <= outputs(tmp_path / "killed").items()
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")


def test_a_recipe_that_trains_nothing_has_nothing_to_prepare(tmp_path: Path, capsys) -> None:
    assert cli.main(words("prepare", tmp_path, "serve.adapter=teachers", "serve.sampler=teacher")) == 0
    assert "none: this recipe serves what needs no training" in capsys.readouterr().out
    assert not outputs(tmp_path)


def test_mistakes_are_told(tmp_path: Path, capsys) -> None:
    assert cli.main(words("prepare", tmp_path, "prepare.preview=3")) == 2
    assert "did you mean" in capsys.readouterr().err
    assert cli.main(words("prepare", tmp_path, "prepare.batch_size=0")) == 2
    assert "prepare.batch_size" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.main(words("prepare", tmp_path / "file")) == 2
    said = capsys.readouterr().err
    assert "cannot write" in said
    assert "Traceback" not in said

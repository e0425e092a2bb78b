"""Training as a user has it, on a terminal that closes and under torchrun, stopped and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from on_terminal import BOUND, on_a_terminal
from small_run import check_same, only_run, run_words

from clora import cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals and terminals as POSIX has them"),
]


def test_a_run_whose_terminal_closes_saves_and_goes_on_bit_identical(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert on_a_terminal([sys.executable, "-m", "clora", *run_words(tmp_path)], b"train 1/3") == 129
    run = only_run(tmp_path)
    (step,) = (int(path.name) for path in (run / "checkpoints").iterdir())
    assert step in (1, 2, 3)
    assert len((run / "steps.jsonl").read_text().splitlines()) == step
    assert not (run / "export").exists()
    assert cli.main(run_words(tmp_path)) == 0
    check_same(run, finished)
    assert "prepare: 2 of" not in capsys.readouterr().err  # the teachers' outputs are there already


def test_ctrl_c_stops_all_processes_of_torchrun_after_the_same_update(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "clora"]
    words = [sys.executable, *launcher, *run_words(tmp_path, "train.steps=500", "train.checkpoint_every=500")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    before = []
    for line in process.stderr:
        before.append(line)
        if "train 1/500" in line:
            break
    # the terminal sends it to all, and torchrun then passes it on to its processes once more
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=4 * BOUND)
    assert process.returncode != 0
    (checkpoint,) = (only_run(tmp_path) / "checkpoints").iterdir()
    step = int(checkpoint.name)
    (told,) = (line for line in said.splitlines() if line.startswith("stopped"))
    assert told.startswith(f"stopped by SIGINT while training; the checkpoint of update {step} is saved."), before
    assert len((only_run(tmp_path) / "steps.jsonl").read_text().splitlines()) == step
    assert str(cli.__file__) not in said  # the only traceback is torchrun's own

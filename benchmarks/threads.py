"""What a training cycle costs by number of threads and by how they wait, alone and beside busy processes.

    python benchmarks/threads.py [--recipe quickstart] [--cycles 12] [--repeats 3] [--beside 0 1 2]
        [--threads 1 2 auto] [--waiting unset active passive] [--set KEY=VALUE] [--runs runs/threads] [--out CSV]

Every measurement is a process of its own, which sets its threads up as the command line does. The first cycles of each
warm up and are left out; a row has the medians over the cycles of all repeats, which take turns. What the teachers make
is made once and lies in RUNS.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from attrs import frozen

from clora.process import threads

ROOT = Path(__file__).parents[1]
WARM_UP = 3
WAITING = {"unset": None, "active": "active", "passive": "passive"}
#: ends with its parent, and by itself after an hour
BUSY = (
    "import os, time\nend = time.time() + 3600\nwhile os.getppid() == {parent} and time.time() < end: sum(range(9999))"
)


@frozen
class Case:
    """How many threads ("auto" chooses), how they wait, beside how many busy processes."""

    threads: str
    waiting: str
    beside: int


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--recipe", default="quickstart")
    made.add_argument("--cycles", type=int, default=12, help=f"measured in each process, after {WARM_UP} that warm up")
    made.add_argument("--threads", nargs="+", default=["1", "2", "auto"])
    made.add_argument("--waiting", nargs="+", choices=WAITING, default=list(WAITING))
    made.add_argument("--beside", nargs="+", type=int, default=[0, 1, 2])
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    made.add_argument("--runs", type=Path, default=ROOT / "runs" / "threads")
    made.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/threads.csv")
    made.add_argument("--one", metavar="N", help=argparse.SUPPRESS)  # the measured process itself
    return made


def measured(args: argparse.Namespace) -> dict[str, object]:
    """Train in this process; seconds and processor seconds of every cycle after the warm-up."""
    choice = threads.set_up(None if args.one == "auto" else int(args.one), os.environ)
    import torch

    from clora.config.load import load_recipe
    from clora.contracts.values import StepReport
    from clora.errors import CloraError
    from clora.planning.plan import make_plan
    from clora.plugin_system.discovery import discover
    from clora.runs.job import make_job, run_folder
    from clora.runs.pipeline import Pipeline
    from clora.runs.progress import Progress
    from clora.training.distributed import Distributed

    clocks: list[tuple[float, float]] = []
    wanted = WARM_UP + args.cycles

    class EnoughError(CloraError):
        pass

    class Clock(Progress):
        def step(self, report: StepReport, steps: int, label: str = "train") -> None:
            clocks.append((time.perf_counter(), time.process_time()))
            if len(clocks) > wanted:
                raise EnoughError

    catalogue = discover()
    sets = [f"train.steps={wanted + 1}", f"train.checkpoint_every={wanted + 1}", *args.sets]
    plan = make_plan(load_recipe(ROOT / "recipes" / f"{args.recipe}.yaml", (), sets, catalogue))
    folder = run_folder(plan, args.runs)
    with suppress(EnoughError):
        Pipeline(make_job(plan, catalogue, folder), catalogue, Distributed(), Clock(on=False)).run()
    pairs = list(zip(clocks[WARM_UP:], clocks[WARM_UP + 1 :], strict=False))
    return {
        "chosen": torch.get_num_threads(),
        "said": str(choice),
        "seconds": [after[0] - before[0] for before, after in pairs],
        "processor": [after[1] - before[1] for before, after in pairs],
    }


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    code = BUSY.format(parent=os.getpid())
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def run_case(case: Case, args: argparse.Namespace) -> dict:
    """One measurement, in a process whose environment says nothing but how to wait."""
    clean = {name: value for name, value in os.environ.items() if name not in (*threads.COUNTS, *threads.WAITING)}
    policy = WAITING[case.waiting]
    environment = clean if policy is None else clean | {"OMP_WAIT_POLICY": policy}
    words = ["--recipe", args.recipe, "--cycles", str(args.cycles), "--runs", str(args.runs), "--one", case.threads]
    words += [word for setting in args.sets for word in ("--set", setting)]
    with busy(case.beside):
        command = [sys.executable, __file__, *words]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def forget_runs(runs: Path) -> None:
    """Have the next process train from the start; what the teachers made stays."""
    for folder in runs.iterdir() if runs.exists() else ():
        if not folder.name.startswith("."):
            shutil.rmtree(folder)


def rows(cases: Sequence[Case], args: argparse.Namespace) -> list[dict[str, object]]:
    """Every case's medians; the cases take turns, so that a machine that changes changes them alike."""
    found: dict[Case, list[dict]] = {case: [] for case in cases}
    for turn in range(args.repeats):
        for case in cases:
            forget_runs(args.runs)
            found[case].append(run_case(case, args))
            print(f"{turn + 1}/{args.repeats} {case}: {median(found[case][-1]['seconds']):.3f} s a cycle", flush=True)
    return [
        {
            "threads": case.threads,
            "waiting": case.waiting,
            "beside": case.beside,
            "chosen": " ".join(str(one["chosen"]) for one in made),
            "seconds_a_cycle": round(median(s for one in made for s in one["seconds"]), 4),
            "processor_seconds_a_cycle": round(median(s for one in made for s in one["processor"]), 4),
            "cycles": sum(len(one["seconds"]) for one in made),
            "recipe": args.recipe,
            "said": made[-1]["said"],
        }
        for case, made in found.items()
    ]


def main() -> None:
    """Measure and write results/threads.csv."""
    args = parser().parse_args()
    if args.one is not None:
        print(json.dumps(measured(args)))
        return
    from machine import write_rows

    cases = [Case(n, waiting, beside) for beside in args.beside for n in args.threads for waiting in args.waiting]
    run_case(Case("1", "unset", 0), args)  # what the teachers make is not part of any measurement
    write_rows(args.out, rows(cases, args))


if __name__ == "__main__":
    main()

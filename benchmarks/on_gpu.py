"""Everything that is to be shown on a GPU: measured, and compared with what was aimed at.

    python benchmarks/on_gpu.py                # `make bench-gpu`; ends with 1 where a target is missed
    python benchmarks/on_gpu.py --short        # kernels at the rank and the rows of a training step alone
    python benchmarks/on_gpu.py --only-check   # of what is in the folder

The kernels by themselves at Qwen-Image's shapes, and on the CPU at the emoji model's; a whole cycle on one Qwen-Image
block at full width and on the emoji model; switches of teachers. Each is a script of its own: one that fails leaves its
targets unmeasured and the others go on. Tables go to runs/gpu; those to be kept are copied to results.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from attrs import frozen
from cycle_targets import step_targets, switch_targets
from kernel_cases import cases
from kernel_targets import DESIGN_ROWS, Key, Row, Target, report, targets, unmeasured

HERE = Path(__file__).parent


@frozen
class Part:
    """One script with its options, the table that it writes, what that is compared with, the kernels' cases in it."""

    table: str
    script: str
    options: tuple[str, ...]
    targets: Callable[[Iterable[Row]], Iterator[Target]]
    keys: tuple[Key, ...] = ()

    def command(self, folder: Path) -> list[str]:
        """What a person would type."""
        return [sys.executable, str(HERE / self.script), *self.options, "--out", str(folder / self.table)]

    def compared(self, folder: Path) -> tuple[list[Target], list[str]]:
        """The targets that its table in this folder can be compared with, and what is lacking."""
        if not (folder / self.table).exists():
            return [], [f"{self.table}: not measured"]
        with (folder / self.table).open() as file:
            found = list(self.targets(csv.DictReader(file)))
        lacking = unmeasured(found, self.keys)
        return found, lacking if found or lacking else [f"{self.table}: nothing in it can be compared"]


def parts(short: bool) -> list[Part]:
    """What is measured, in this order: the kernels first, as a whole cycle uses what they found quickest."""
    cuda, cpu, few = ("--device", "cuda"), ("--device", "cpu", "--only", "emoji"), ()
    keys = [case.key for case in cases("cuda")]
    if short:
        few = ("--ranks", "128", "--rows", *DESIGN_ROWS, "--seconds", "2")
        keys = [key for key in keys if key[1] in DESIGN_ROWS and key[2] == "128"]
    return [
        Part("kernel_lora_cuda.csv", "kernel_lora.py", (*cuda, *few), targets, tuple(keys)),
        Part("step_cost_qwen.csv", "step_cost.py", (*cuda, "--model", "qwen"), step_targets),
        Part("teacher_switch.csv", "teacher_switch.py", cuda, switch_targets),
        Part("step_cost.csv", "step_cost.py", cuda, step_targets),
        Part("kernel_lora_cpu.csv", "kernel_lora.py", cpu, targets, tuple(case.key for case in cases("cpu"))),
    ]


def main() -> None:
    """Measure, and end with 1 where a target is missed or could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only-check", action="store_true", help="measure nothing")
    parser.add_argument("--folder", type=Path, default=HERE.parent / "runs/gpu")
    args = parser.parse_args()
    wanted = parts(args.short)
    for part in () if args.only_check else wanted:
        (args.folder / part.table).unlink(missing_ok=True)  # an old table must not stand for one that failed
        print(f"\n== {part.script} {' '.join(part.options)}", flush=True)
        done = subprocess.run(part.command(args.folder), check=False)
        if done.returncode:
            print(f"{part.script} failed with exit code {done.returncode}", flush=True)
    print()
    compared = [part.compared(args.folder) for part in wanted]
    sys.exit(report([t for found, _ in compared for t in found], [line for _, lines in compared for line in lines]))


if __name__ == "__main__":
    main()

"""Processor time of the commands that only look at a recipe, beside that of importing what they cannot do without.

    python benchmarks/startup.py [--repeats 5]

Writes results/startup.csv: the median over the repeats of user and system time of whole processes, in turns.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys

from machine import provenance
from many_runs import ROOT

CLORA = [sys.executable, "-m", "clora"]
COMMANDS = {
    "import pluggy, attrs, yaml": [sys.executable, "-c", "import pluggy, attrs, yaml"],
    "clora --help": [*CLORA, "--help"],
    "clora plugins": [*CLORA, "plugins"],
    "clora show recipes/collection.yaml": [*CLORA, "show", "recipes/collection.yaml"],
    "clora validate, an unknown key": [*CLORA, "validate", "recipes/collection.yaml", "--set", "train.step=3"],
    "clora run, an unknown component": [*CLORA, "run", "recipes/collection.yaml", "--set", "losses.ts_dmd.use=dmdd"],
    "clora validate, nothing wrong": [*CLORA, "validate", "recipes/collection.yaml"],
    "import torch, diffusers, peft, transformers": [
        sys.executable,
        "-c",
        "import torch, transformers, peft; from diffusers import QwenImageTransformer2DModel",
    ],
}


def processor_seconds(command: list[str]) -> float:
    """User and system time of one process and its children."""
    before = os.times()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Run all commands in turns, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for repeat in range(args.repeats + 1):
        for name, command in COMMANDS.items():
            seconds = processor_seconds(command)
            if repeat:  # the first turn reads files that the others find in memory
                taken[name].append(seconds)
    rows = [
        {"what": name, "processor_seconds": f"{statistics.median(each):.2f}", **provenance()}
        for name, each in taken.items()
    ]
    with (ROOT / "benchmarks/results/startup.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(f"{row['processor_seconds']:>6}  {row['what']}")


if __name__ == "__main__":
    main()

"""A run's folder for the tests of what reads finished runs: `run.json`, and what an evaluation found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clora.contracts.evaluation import Quantity
from clora.runs.files.record import RunRecord
from clora.runs.files.results import Results
from clora.runs.run_dir import RunDir


def write_evaluated_run(
    folder: Path,
    values: Mapping[str, float],
    quantities: Mapping[str, Quantity] | None = None,
    *,
    name: str = "",
    seed: int = 0,
    nfe: str = "4",
) -> Path:
    """Write what an evaluated run says of itself and return its folder; there is no LoRA, report or checkpoint in it.

    `nfe` is the number of network evaluations for a picture. A name that is not given is the folder's.
    """
    run = RunDir(folder)
    run.write_info(
        RunRecord(
            name=name or folder.name,
            title="",
            seed=seed,
            digest="0" * 16,
            steps=100,
            seconds=60.0,
            ranks=1,
            recipe="0" * 16,
            machine={},
            versions={},
        )
    )
    run.write_results(Results(nfe=nfe, values=values, quantities=quantities or {}))
    return folder

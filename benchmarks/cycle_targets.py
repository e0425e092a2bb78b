"""Whether whole cycles and switches of teachers are as quick as was aimed at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kernel_targets import SLACK, Row, Target

#: a switch that the step before it hides takes no time: what is left of it, over that step
HIDDEN = 0.01
AHEAD, PLAIN = "loaded ahead", "tensor by tensor"


def step_targets(rows: Iterable[Row]) -> Iterator[Target]:
    """A cycle with kernels takes no longer than one without, whichever way it is run."""
    for row in rows:
        if row["kernels"] == "on":
            packed = "packed" if row["pack"] == "True" else "one by one"
            case = f"a cycle of {row['model']}, {row['schedule']}, {packed}"
            yield Target(case, "kernels off", 1 / float(row["median_speedup"]), SLACK)


def switch_targets(rows: Iterable[Row]) -> Iterator[Target]:
    """A teacher that was loaded ahead is waited for no longer than one that is copied tensor by tensor, and from files
    in the page cache not at all where a step is longer than that copy."""
    by_files: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_files.setdefault(row["files"], {})[row["way"]] = row
    for files, ways in by_files.items():
        if AHEAD not in ways or PLAIN not in ways:
            continue
        stall, plain = (float(ways[way]["median_stall_seconds"]) for way in (AHEAD, PLAIN))
        case = f"a switch of teachers, files {files}"
        yield Target(case, PLAIN, stall / plain, 1.0)
        step = float(ways[AHEAD]["median_step_seconds"])
        if files != "cold" and step > plain:
            yield Target(case, "the step that hides it", stall / step, HIDDEN)

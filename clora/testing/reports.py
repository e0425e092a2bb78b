"""Runs to tell of, for the tests of reporters, and the checks that a reporter must pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clora.contracts.evaluation import Matrix, Measured, PictureGrid, Quantity, Reference
from clora.contracts.report import Composition, Cost, EffectReport, RunReport
from clora.contracts.run import RunInfo
from clora.contracts.values import StepReport
from clora.planning.report_files import contents_problem, report_file_findings
from clora.plugin_system.guard import Owners

if TYPE_CHECKING:
    import torch

#: what no page or file may take for markup, an encoding's end or a column
HOSTILE = '<b>"it\'s" & \u2028 \ud800'


def bare_report() -> RunReport:
    """A run that trained nothing and measured nothing."""
    return RunReport(RunInfo("bare", Path("runs/bare"), "0000", 0), "bare")


def example_report(word: str = "clay") -> RunReport:
    """A run with every part: two effects, of which one is called `word`, as are a warning and an instruction."""
    effects, subjects = (word, "ink"), ("cat", "dog")
    grid = PictureGrid(subjects, {role: _pictures(i) for i, role in enumerate(("source", "teacher", "student"))})
    quantities = {
        "distance": Quantity("lower", headline=True),
        "hits": Quantity("higher", unit="%"),
        "teacher_distance": Quantity("lower", reference=Reference("teacher", "distance")),
    }
    measured = Measured(
        values={"distance": 0.25, "hits": 0.5, "teacher_distance": 0.125, "noise": float("nan")},
        quantities=quantities,
        per_effect={effect: {"distance": 0.25, "hits": 0.5} for effect in effects},
        per_picture={effect: {"distance": (0.125, 0.375)} for effect in effects},
        matrices={"nearest": Matrix(effects, effects, ((1.0, 0.0), (0.5, 0.5)), "What came.", confusion=True)},
        grids={"worst": PictureGrid(subjects, {"student": _pictures(3)}, "The worst ones.")},
        summary="half of them are right",
    )
    return RunReport(
        run=RunInfo("example", Path("runs/example"), "0123", 2),
        title=f"An example with {word}",
        verdict="Two effects from one LoRA: half of them are right.",
        facts={"effects": "2", "seed": "0"},
        recipe=f"title: {word!r}\n",
        effects=tuple(EffectReport(effect, f"{effect} of it", f"make it {effect}", grid) for effect in effects),
        general=PictureGrid((f"make it {word}", "make it night"), {"source": _pictures(4), "student": _pictures(5)}),
        compositions=(Composition(effects, f"{word}, then ink", grid),),
        measured=measured,
        steps=tuple(StepReport(i, {"opd": 1 / i}, 0.5, 3.0, 1e-3, {"opd.gap.high": 0.1}) for i in (1, 2)),
        warm_steps=(StepReport(1, {"flow": 1.0}, 0.5, 3.0, 1e-3),),
        cost=Cost(90.0, 2, 3.0, 1 << 30, {"train": 1.0}),
        machine={"system": "here"},
        versions={"clora": "0"},
        warnings=(f"{word} looks pale",),
    )


def reporter_problems(reporter: Any) -> Iterator[str]:
    """Its files, of a whole run, of a bare one, of one with hostile text; alike each time, with pictures untouched."""
    findings = [sentence for _, sentence in report_file_findings({"it": reporter})]
    if findings:
        yield from findings
        return
    for run in (example_report(), bare_report(), example_report(HOSTILE)):
        before = [rows.clone() for rows in _all_pictures(run)]
        with Owners().calling("reporters"):
            given, again = reporter.report(run), reporter.report(run)
        problem = contents_problem(given, reporter.files())
        if problem is not None:
            yield f"of the run {run.run.name} it {problem}"
            return
        if dict(given) != dict(again):
            yield "the same run gave other contents the second time"
        if any(not rows.equal(old) for rows, old in zip(_all_pictures(run), before, strict=True)):
            yield "it changed the pictures, which other reporters read"


def _pictures(seed: int) -> torch.Tensor:
    import torch

    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=draw)


def _all_pictures(run: RunReport) -> list[torch.Tensor]:
    grids = [effect.pictures for effect in run.effects] + [composed.pictures for composed in run.compositions]
    return [rows for grid in (*grids, run.general, *run.measured.grids.values()) if grid for rows in grid.rows.values()]

"""Report: all that there is to tell of a run, gathered once and handed to every reporter of the recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from clora.contracts.data import Truth
from clora.contracts.evaluation import Measured, PictureGrid
from clora.contracts.report import Composition, Cost, EffectReport, RunReport
from clora.diffusion.rng import StepRng
from clora.errors import CloraError
from clora.files.atomic import write_atomic
from clora.inference.composition import chain
from clora.inference.edit_sampler import EditSampler
from clora.planning.report_files import contents_problem
from clora.plugin_system.guard import ComponentError
from clora.process.stopping import during
from clora.runs.files.record import RunRecord
from clora.runs.files.results import Results
from clora.runs.files.steps import read_steps
from clora.runs.files.tensors import read_tensors
from clora.runs.run_dir import RunDir
from clora.runs.stages.alarms import alarms
from clora.runs.stages.evaluate import general_items, load_served, to_uint8
from clora.training.warm_start import warm_folder, was_taken

if TYPE_CHECKING:
    import torch

    from clora.contracts.run import RunInfo
    from clora.contracts.values import StepReport
    from clora.inference.conditioning import Condition
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan

_SUBJECTS = 8  # pictures per effect in a report
_INSTRUCTIONS = 12
_COMPOSITIONS = 3


@during("while the report was made", "everything up to the evaluation is kept")
def report(
    plan: Plan, run: RunInfo, session: Callable[[], ModelSession], folder: RunDir, plus: Path | None
) -> tuple[Path, ...]:
    """Have every reporter tell of the run; returns their files. `session` is called where samples must be made.

    Raises ComponentError for every reporter that raises or gives something else, once the others are done.
    """
    gathered = gather(plan, run, session, folder, plus)
    written: list[Path] = []
    failed: list[CloraError] = []
    for key in plan.recipe.reporters:
        try:
            written += told_by(plan, key, gathered, folder.path)
        except CloraError as error:
            failed.append(error)
    if failed:
        raise ComponentError("\n".join(map(str, failed))) from failed[0]
    return tuple(written)


def told_by(plan: Plan, key: str, run: RunReport, folder: Path) -> list[Path]:
    """Have one reporter tell of a run, and write what it gives; returns its files.

    Raises ComponentError for what it does wrong, and CloraError where a file cannot be written.
    """
    reporter, place = plan.recipe.reporters[key], f"reporters.{key}"
    try:
        with plan.owners.calling(place):
            names, given = tuple(reporter.files()), reporter.report(run)
    except ComponentError:
        raise
    except CloraError as error:  # a sentence of the reporter's own, which says neither whose it is nor where
        raise plan.owners.error(place, str(error)) from error
    problem = contents_problem(given, names)
    if problem is not None:
        raise plan.owners.error(place, problem)
    for name in names:
        write_atomic(folder / name, given[name])
    return [folder / name for name in names]


def gather(
    plan: Plan, run: RunInfo, session: Callable[[], ModelSession], folder: RunDir, plus: Path | None
) -> RunReport:
    """All that the run's folder says, and a few composed samples."""
    results = folder.read_results()
    pictures = read_tensors(folder.pictures)
    shown = read_tensors(folder.metric_pictures) if results.grids else {}
    steps = read_steps(folder.steps).reports
    warm = read_steps(warm_folder(folder.path) / folder.steps.name).reports
    info = folder.info()
    measured = results.measured(shown)
    return RunReport(
        run=run,
        title=plan.recipe.title or plan.recipe.name,
        verdict=_verdict(plan, measured),
        facts=_facts(plan, results),
        recipe=plan.text,
        effects=tuple(_effect(plan, name, pictures) for name in plan.prompts),
        general=_general(plan, pictures),
        compositions=_compositions(plan, session, folder, plus),
        measured=measured,
        steps=tuple(steps),
        warm_steps=tuple(warm),
        cost=_cost(info, steps, warm, not was_taken(folder.path)),
        machine=info.machine,
        versions=info.versions,
        warnings=(*_warnings(plan, steps), *alarms(plan, steps)),
    )


def _warnings(plan: Plan, steps: Sequence[StepReport]) -> tuple[str, ...]:
    """What of the curves is lost: the log was damaged, and the updates are not made again for its sake."""
    wanted = plan.recipe.train.steps if plan.recipe.losses and plan.recipe.serve.adapter == "student" else 0
    if len(steps) >= wanted:
        return ()
    return (f"The log of the updates was damaged: it has {len(steps)} of {wanted}, and the curves lack the others.",)


def _verdict(plan: Plan, measured: Measured) -> str:
    """One sentence that answers whether it worked, in the words of the metrics."""
    served = {"student": "one LoRA", "teachers": "each effect's own LoRA", "merge": "one merged LoRA"}
    how = f"{len(plan.cards)} effects from {served[plan.recipe.serve.adapter]}"
    return f"{how}: {measured.summary}." if measured.summary else f"{how}."


def _facts(plan: Plan, results: Results) -> dict[str, str]:
    recipe = plan.recipe
    facts = {"effects": str(len(plan.cards)), "network evaluations a picture": results.nfe, "seed": str(recipe.seed)}
    if recipe.serve.sampler == "few_step":
        facts["few-step schedule"] = plan.schedule
    if recipe.losses:
        facts |= {
            **({} if recipe.warm_start is None else {"warm start": f"{recipe.warm_start.updates:,} updates"}),
            "student updates": f"{recipe.train.steps:,} of {recipe.train.batch_size} rows",
            "rank": str(recipe.student.rank),
            "losses": ", ".join(recipe.losses),
            "schedule": recipe.train.schedule,
        }
    return facts | {"recipe hash": plan.digest}


def _effect(plan: Plan, name: str, pictures: Mapping[str, torch.Tensor]) -> EffectReport:
    card = next(card for card in plan.cards if card.name == name)
    names = tuple(plan.recipe.dataset.sources(name, "test")[:_SUBJECTS])
    rows = _rows(pictures, name, ("source", "truth", "teacher", "student"), _SUBJECTS)
    grid = PictureGrid(names[: len(rows["source"])], rows)
    return EffectReport(name, plan.prompts[name].student, card.teacher_prompt, grid)


def _general(plan: Plan, pictures: Mapping[str, torch.Tensor]) -> PictureGrid | None:
    if "general.source" not in pictures:
        return None
    instructions = tuple(item.instruction for item in general_items(plan)[:_INSTRUCTIONS])
    return PictureGrid(instructions, _rows(pictures, "general", ("source", "truth", "base", "student"), _INSTRUCTIONS))


def _rows(pictures: Mapping[str, torch.Tensor], whose: str, roles: Sequence[str], most: int) -> dict[str, torch.Tensor]:
    return {role: pictures[f"{whose}.{role}"][:most] for role in roles if f"{whose}.{role}" in pictures}


def _compositions(
    plan: Plan, session: Callable[[], ModelSession], folder: RunDir, plus: Path | None
) -> tuple[Composition, ...]:
    """Neighbouring effects of the bank, at once and in two passes, where one adapter serves all of them."""
    pairs = _composed(plan)
    if not pairs:
        return ()
    loaded = session()
    served = load_served(plan, loaded, folder, plus)
    return tuple(_composition(plan, loaded, served.effect[a], (a, b)) for a, b in pairs)


def _composed(plan: Plan) -> list[tuple[str, str]]:
    """The pairs of effects whose compositions are shown; none where nobody is told of them."""
    if not plan.recipe.reporters or plan.recipe.serve.adapter == "teachers" or plan.recipe.serve.sampler != "few_step":
        return []
    return [(a.name, b.name) for a, b in pairwise(plan.cards)][::2][:_COMPOSITIONS]


def _composition_sources(plan: Plan, effect: str) -> tuple[str, ...]:
    return tuple(plan.recipe.dataset.sources(effect, "test")[: _SUBJECTS // 2])


def conditions_of_report(plan: Plan) -> Iterator[Condition]:
    """What the compositions are made from; the second of two passes edits what the first has made."""
    for effects in _composed(plan):
        each = [plan.prompts[name].student for name in effects]
        for name in _composition_sources(plan, effects[0]):
            yield from ((prompt, name) for prompt in (*each, chain(each)))


def _composition(plan: Plan, session: ModelSession, adapter: str, effects: Sequence[str]) -> Composition:
    first, second = effects
    dataset = plan.recipe.dataset
    names = _composition_sources(plan, first)
    each = [plan.prompts[name].student for name in effects]
    instruction = chain(each)
    rows = {"source": dataset.images(names)}
    if isinstance(dataset, Truth):
        rows["truth"] = dataset.truth(second, names, dataset.truth(first, names))
    sampler = EditSampler(plan, session)
    rng = StepRng(0).named("composition").named("+".join(effects))
    for label, prompt in zip((first, second, "both at once"), (*each, instruction), strict=True):
        rows[label] = sampler.few_step(adapter, [prompt] * len(names), names, rng)
    rows["in two passes"] = sampler.in_passes(adapter, each, names, rng)
    grid = PictureGrid(names, {row: to_uint8(pictures) for row, pictures in rows.items()})
    return Composition(tuple(effects), instruction, grid)


def _cost(info: RunRecord, steps: Sequence[StepReport], warm: Sequence[StepReport], own: bool) -> Cost:
    mean = sum(step.forward_equivalents for step in steps) / len(steps) if steps else 0.0
    stages = (
        {"warm start" if own else "warm start, by a run beside it": sum(step.seconds for step in warm)} if warm else {}
    )
    stages["train"] = sum(step.seconds for step in steps)
    return Cost(info.seconds, len(steps), mean, _peak_memory(), stages)


def _peak_memory() -> int | None:
    """The most bytes this process has held; None where the system does not tell (Windows)."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

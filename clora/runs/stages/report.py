"""Report: one page that opens offline, made from the run's folder and a few composed samples."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clora.contracts.data import Truth
from clora.contracts.evaluation import Measured
from clora.contracts.values import StepReport
from clora.diffusion.rng import StepRng
from clora.inference.composition import chain
from clora.inference.edit_sampler import EditSampler
from clora.process.stopping import during
from clora.report.data import Chart, Composition, Cost, EffectEntry, Grid, ReportData
from clora.report.page import write_report
from clora.runs.files.record import RunRecord
from clora.runs.files.results import Results
from clora.runs.files.steps import read_steps
from clora.runs.files.tensors import read_tensors
from clora.runs.run_dir import RunDir
from clora.runs.stages.alarms import alarms
from clora.runs.stages.evaluate import general_items, load_served
from clora.training.warm_start import warm_folder, was_taken

if TYPE_CHECKING:
    from clora.inference.conditioning import Condition
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan

_SUBJECTS = 8  # pictures per effect on the page
_INSTRUCTIONS = 12
_COMPOSITIONS = 3


@during("while the report was made", "everything up to the evaluation is kept")
def report(plan: Plan, session: Callable[[], ModelSession], folder: RunDir, plus: Path | None) -> None:
    """Write `report.html`. `session` is called only where samples must be made."""
    results = folder.read_results()
    pictures = read_tensors(folder.pictures)
    log = read_steps(folder.steps)
    steps = log.reports
    warm = read_steps(warm_folder(folder.path) / folder.steps.name).reports
    info = folder.info()
    measured = results.measured()
    write_report(
        folder.report,
        ReportData(
            title=plan.recipe.title or plan.recipe.name,
            verdict=_verdict(plan, measured),
            facts=_facts(plan, results),
            recipe=plan.text,
            effects=tuple(_entry(plan, name) for name in plan.prompts),
            effect_grids={card.name: _grid(plan, card.name, pictures) for card in plan.cards},
            general=_general(plan, pictures),
            compositions=_compositions(plan, session, folder, plus),
            charts=(*_warm_chart(warm), *_charts(steps)),
            measured=measured,
            cost=_cost(info, steps, warm, not was_taken(folder.path)),
            versions=info.versions,
            warnings=(*_warnings(plan, steps), *alarms(plan, steps)),
        ),
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


def _entry(plan: Plan, name: str) -> EffectEntry:
    card = next(card for card in plan.cards if card.name == name)
    return EffectEntry(name, plan.prompts[name].student, card.teacher_prompt)


def _grid(plan: Plan, effect: str, pictures: Mapping[str, Any]) -> Grid:
    names = tuple(plan.recipe.dataset.sources(effect, "test")[:_SUBJECTS])
    roles = ("source", "truth", "teacher", "student")
    found = {role: pictures[f"{effect}.{role}"][:_SUBJECTS] for role in roles if f"{effect}.{role}" in pictures}
    return Grid(names[: len(found["source"])], found)


def _general(plan: Plan, pictures: Mapping[str, Any]) -> Grid | None:
    if "general.source" not in pictures:
        return None
    instructions = tuple(item.instruction for item in general_items(plan)[:_INSTRUCTIONS])
    roles = ("source", "truth", "base", "student")
    found = {role: pictures[f"general.{role}"][:_INSTRUCTIONS] for role in roles if f"general.{role}" in pictures}
    return Grid(instructions, found)


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
    """The pairs of effects whose compositions are shown."""
    if plan.recipe.serve.adapter == "teachers" or plan.recipe.serve.sampler != "few_step":
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
    roles: dict[str, Any] = {"source": dataset.images(names)}
    if isinstance(dataset, Truth):
        roles["truth"] = dataset.truth(second, names, dataset.truth(first, names))
    server = EditSampler(plan, session)
    rng = StepRng(0).named("composition").named("+".join(effects))
    for label, prompt in zip((first, second, "both at once"), (*each, instruction), strict=True):
        roles[label] = server.few_step(adapter, [prompt] * len(names), names, rng)
    roles["in two passes"] = server.in_passes(adapter, each, names, rng)
    return Composition(tuple(effects), instruction, Grid(names, roles))


def _warm_chart(steps: Sequence[StepReport]) -> tuple[Chart, ...]:
    """The warm start's losses against its own updates; none without one."""
    return (Chart("warm start", _series(steps, lambda step: step.losses), log=True),) if steps else ()


def _charts(steps: Sequence[StepReport]) -> tuple[Chart, ...]:
    """The losses, the gradient norms, and what the losses say of themselves, against student updates."""
    if not steps:
        return ()
    charts = [Chart("losses", _series(steps, lambda step: step.losses), log=True)]
    groups: dict[str, list[str]] = {}
    for name in sorted({name for step in steps for name in step.logs}):
        groups.setdefault(_quantity(name)[1], []).append(name)
    for quantity, names in groups.items():
        series = _series(steps, lambda step, names=names: {n: step.logs[n] for n in names if n in step.logs})
        series = {_quantity(name)[0]: points for name, points in series.items()}
        positive = all(value > 0 for points in series.values() for _, value in points)
        charts.append(Chart(quantity.replace("_", " "), series, log=positive))
    return tuple(charts)


def _quantity(name: str) -> tuple[str, str]:
    """A log's series and quantity: `critic.on_target.grad.high` is `critic.on_target high` of `grad`."""
    *owner, quantity = name.split(".")[: 3 if name.startswith("critic.") and name.count(".") > 1 else 2]
    part = name.split(".")[len(owner) + 1 :]
    return " ".join([".".join(owner), *part]), quantity


def _series(
    steps: Sequence[StepReport], pick: Callable[[StepReport], Mapping[str, float]]
) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for step in steps:
        for name, value in pick(step).items():
            series.setdefault(name, []).append((step.step, value))
    return series


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

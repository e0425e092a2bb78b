"""What the components of a recipe say of it themselves, and what each of them must have."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from clora.contracts.component import Checked, Warns
from clora.contracts.data import ChecksDataset, ChecksEvaluation
from clora.plugin_system.guard import sentences
from clora.plugin_system.required_members import likely_mistakes, misfits
from clora.training.critics import critic_problems

if TYPE_CHECKING:
    from clora.config.schema import Recipe

#: (the recipe's dotted place that it concerns, one sentence)
Finding = tuple[str, str]


def components(recipe: Recipe) -> list[tuple[str, Any]]:
    """Every component of a recipe with its place, such as `losses.bs_dmd`."""
    single = {
        "backbone": recipe.backbone,
        "dataset": recipe.dataset,
        "teachers": recipe.teachers,
        "router": recipe.router,
        "prompts": recipe.prompts,
        "kernels": recipe.kernels,
        "optimizer": recipe.optimizer,
        "captioner": recipe.captioner,
        "serve.merge": recipe.serve.merge,
    }
    groups = {
        "simulations": recipe.simulations,
        "losses": recipe.losses,
        "metrics": recipe.metrics,
        "exporters": recipe.exporters,
        "observers": recipe.observers,
        "reporters": recipe.reporters,
    }
    if recipe.critic is not None:
        groups["critic.losses"] = recipe.critic.losses
    if recipe.warm_start is not None:
        single["warm_start.router"] = recipe.warm_start.router
        groups["warm_start.losses"] = recipe.warm_start.losses
    if recipe.start is not None:
        groups["start.teachers"] = recipe.start.teachers
    found = [(place, part) for place, part in single.items() if part is not None]
    return found + [(f"{place}.{name}", part) for place, group in groups.items() for name, part in group.items()]


def incomplete(recipe: Recipe) -> list[Finding]:
    """Components that lack what their section asks of them: nothing else can be asked of a recipe that has one."""
    return [(place, sentence) for place, part in components(recipe) for sentence in misfits(place, part)]


def checked(part: Any) -> Iterable[str]:
    """What a component's own check finds."""
    return sentences("check", part.check) if isinstance(part, Checked) else ()


def doubted(recipe: Recipe) -> Iterable[Finding]:
    """What components find doubtful in themselves, and methods that nobody can call as they are."""
    for place, part in components(recipe):
        yield from ((place, told) for told in (sentences("warnings", part.warnings) if isinstance(part, Warns) else ()))
        yield from ((place, told) for told in likely_mistakes(part))


def objective_findings(recipe: Recipe) -> Iterable[Finding]:
    """Sections that contradict one another: something to train without a loss, a critic without one."""
    if recipe.serve.adapter == "student" and not recipe.losses:
        yield "losses", "nothing is trained, but `serve.adapter: student` serves what was trained"
    if recipe.serve.adapter == "merge" and recipe.serve.merge is None:
        yield "serve", "`adapter: merge` needs `merge: {use: NAME}`, the way to merge (`clora plugins`)"
    if recipe.critic is not None and not recipe.critic.losses:
        yield "critic", "the critic has no losses; add some under critic.losses, or remove it with `critic: null`"
    yield from critic_problems(recipe)
    if recipe.critic is not None and recipe.critic.lag is not None and recipe.train.shard_base:
        yield (
            "critic.lag",
            "it is not measured where processes share one base (train.shard_base); remove one of the two",
        )


def metric_findings(recipe: Recipe) -> Iterable[Finding]:
    """Metrics that could not measure this dataset's pictures once they are made, or not beside one another."""
    for name, metric in recipe.metrics.items():
        if isinstance(metric, ChecksDataset):
            yield from ((f"metrics.{name}", told) for told in _suited(metric, recipe))
        if isinstance(metric, ChecksEvaluation):
            others = [other for key, other in recipe.metrics.items() if key != name]
            found = sentences("check_evaluation", partial(metric.check_evaluation, recipe.evaluate.teacher, others))
            yield from ((f"metrics.{name}", sentence) for sentence in found)


def _suited(part: ChecksDataset, recipe: Recipe) -> list[str]:
    """What a metric or backbone finds wrong with the recipe's pictures."""
    return sentences("check_dataset", partial(part.check_dataset, recipe.dataset))


def picture_findings(recipe: Recipe) -> Iterable[Finding]:
    """Pictures that the backbone cannot take."""
    if isinstance(recipe.backbone, ChecksDataset):
        yield from (("dataset", sentence) for sentence in _suited(recipe.backbone, recipe))

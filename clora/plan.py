"""Recipe -> Plan: all that can fail early fails here, all at once, before any model is loaded."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from attrs import frozen

from clora.errors import QUOTED, escaped, hint, quoted
from clora.extension import finished_effects, mixed, start_digest, start_problems
from clora.lora_files.check import check_lora
from clora.plan_numbers import number_findings, size_findings, teacher_strengths, unfed_losses
from clora.plan_texts import MOST_TOLD, card_problems, instruction_problems, name_problem, text_problem
from clora.protocols import Checked, ChecksCards, ChecksDataset, ChecksEvaluation, ListsLoraFiles, Tokenizes
from clora.recipe.problems import Problem, RecipeError
from clora.routes import slots_problem
from clora.runs import digest_of
from clora.seeding import Draws
from clora.values import EffectCard, GeneralItem, Prompts

if TYPE_CHECKING:
    from pathlib import Path

    from clora.protocols import Teachers
    from clora.recipe.load import LoadedRecipe
    from clora.recipe.schema import Recipe

#: (the recipe's dotted place that it concerns, one sentence)
Finding = tuple[str, str]


@frozen
class Plan:
    """A recipe that has been checked: its effects with their words, and the hash of all that decides its outcome."""

    recipe: Recipe
    digest: str
    text: str  # the resolved recipe as YAML
    cards: tuple[EffectCard, ...]
    prompts: Mapping[str, Prompts]
    mix: tuple[str, ...]  # the effects as the router draws them evenly: once each, or more often to weigh more

    def sources(self, effect: str) -> tuple[str, ...]:
        """The training pictures of an effect that the run uses."""
        return tuple(self.recipe.dataset.sources(effect, "train")[: self.recipe.prepare.train_images])

    def general(self) -> Sequence[GeneralItem]:
        """The general stream's training pictures that the run uses: the same draw for every run, in their order."""
        items = self.recipe.dataset.general("train")
        most = self.recipe.prepare.general_images
        if most is None or most >= len(items):
            return items
        return [items[i] for i in sorted(Draws(0).python("prepare/general").sample(range(len(items)), most))]


#: where these are wrong nothing can be said of effects and pictures
_SUBJECT = frozenset(("backbone", "dataset", "teachers", "prompts", "start"))
MOST_OF_A_FILE = 4  # mistakes told of one teacher's file


def make_plan(loaded: LoadedRecipe, *, thorough: bool = True) -> Plan:
    """Check everything that needs no model and return the plan; unless `thorough`, teachers' headers alone are read.

    Raises RecipeError with every problem found, each at the line that names the part it concerns.
    """
    recipe = loaded.recipe
    problems = [(place, sentence) for place, part in components(recipe) for sentence in _checked(part)]
    problems += [*_names(recipe), *_objective(recipe), *size_findings(recipe), *_metrics(recipe)]
    cards: tuple[EffectCard, ...] = ()
    wrong = {place.split(".")[0] for place, _ in problems}
    if _SUBJECT.isdisjoint(wrong):
        cards, unknown = _chosen(recipe, _all_cards(recipe))
        general = recipe.dataset.general("train")
        texts = _texts(cards, general)
        problems += [*unknown, *(texts or [*_words(recipe, cards), *_pictures(recipe, cards, general)])]
    if "backbone" not in wrong:
        problems += number_findings(recipe)
        problems += _files(recipe, _lora_files(recipe, {place for place, _ in problems}), thorough)
    if _SUBJECT.isdisjoint(wrong):
        problems += _start(recipe, cards) if thorough else ()
        problems += [*_routed(recipe, cards), *_sizes(recipe)] if not problems else ()
    if problems:
        raise RecipeError(Problem(loaded.mark_of(place), f"{place}: {sentence}") for place, sentence in problems)
    prompts = {card.name: recipe.prompts.effect(card) for card in cards}
    digest = _digest(loaded, cards, prompts)
    if recipe.start is None or not thorough:  # a finished extension is used without the run that it began from
        return Plan(recipe, digest, loaded.resolved_yaml(), cards, prompts, tuple(prompts))
    mix = mixed(tuple(prompts), finished_effects(recipe.start.run), recipe.start.replay)
    digest = digest_of([digest, start_digest(recipe.start)])
    return Plan(recipe, digest, loaded.resolved_yaml(), cards, prompts, mix)


def _digest(loaded: LoadedRecipe, cards: tuple[EffectCard, ...], prompts: Mapping[str, Prompts]) -> str:
    """The recipe's hash with the bank's words and strengths, which stand in files of their own that people edit."""
    words = [(card.name, card.scale, prompts[card.name].student, prompts[card.name].teacher) for card in cards]
    return blake2b(json.dumps([loaded.digest, words]).encode(), digest_size=16).hexdigest()


def _all_cards(recipe: Recipe) -> tuple[EffectCard, ...]:
    """The effects of the recipe's own bank and of those that an extension adds."""
    return tuple(card for bank in _banks(recipe).values() for card in bank.cards())


def _banks(recipe: Recipe) -> dict[str, Teachers]:
    """The recipe's own bank and those that an extension adds, by their places."""
    added = {} if recipe.start is None else recipe.start.teachers
    return {"teachers": recipe.teachers, **{f"start.teachers.{name}": bank for name, bank in added.items()}}


def _lora_files(recipe: Recipe, wrong: Collection[str]) -> list[tuple[str, str, Path]]:
    """(place, effect, LoRA file) of the effects in use, as far as a bank at one of the `wrong` places tells them."""
    found: list[tuple[str, str, Path]] = []
    for place, bank in _banks(recipe).items():
        if isinstance(bank, ListsLoraFiles):
            found += [(place, name, file) for name, file in bank.lora_files()]
        elif place not in wrong:
            found += [(place, card.name, card.lora) for card in bank.cards()]
    return [each for each in found if recipe.effects is None or each[1] in recipe.effects]


def _start(recipe: Recipe, cards: tuple[EffectCard, ...]) -> Iterable[Finding]:
    """An extension of a run that cannot be extended so."""
    if recipe.start is None:
        return
    prompts = {card.name: recipe.prompts.effect(card) for card in cards}
    yield from (("start.run", sentence) for sentence in start_problems(recipe.start, prompts))


def checked_cards(recipe: Recipe, places: Collection[str]) -> tuple[tuple[EffectCard, ...], list[Finding]]:
    """The recipe's effects for work that needs no whole plan, and the mistakes in the components at `places`."""
    findings = [
        (place, sentence) for place, part in components(recipe) if place in places for sentence in _checked(part)
    ]
    if findings:
        return (), findings
    cards, unknown = _chosen(recipe, _all_cards(recipe))
    return cards, [*unknown, *_card_texts(cards)]


def components(recipe: Recipe) -> list[tuple[str, Any]]:
    """Every component of a recipe with its place, such as `losses.bs_dmd`."""
    single = {
        "backbone": recipe.backbone,
        "dataset": recipe.dataset,
        "teachers": recipe.teachers,
        "router": recipe.router,
        "prompts": recipe.prompts,
        "kernels": recipe.kernels,
        "captioner": recipe.captioner,
    }
    groups = {"simulations": recipe.simulations, "losses": recipe.losses, "metrics": recipe.metrics}
    if recipe.critic is not None:
        groups["critic.losses"] = recipe.critic.losses
    if recipe.start is not None:
        groups["start.teachers"] = recipe.start.teachers
    found = [(place, part) for place, part in single.items() if part is not None]
    return found + [(f"{place}.{name}", part) for place, group in groups.items() for name, part in group.items()]


def _checked(part: Any) -> Iterable[str]:
    return part.check() if isinstance(part, Checked) else ()


def _objective(recipe: Recipe) -> Iterable[Finding]:
    """Sections that contradict one another: something to train without a loss, a critic without one."""
    if recipe.serve.adapter == "student" and not recipe.losses:
        yield "losses", "nothing is trained, but `serve.adapter: student` serves what was trained"
    if recipe.critic is not None and not recipe.critic.losses:
        yield "critic", "the critic has no losses; add some under critic.losses, or remove it with `critic: null`"


def _metrics(recipe: Recipe) -> Iterable[Finding]:
    """Metrics that could not measure this dataset's pictures once they are made, or not beside one another."""
    for name, metric in recipe.metrics.items():
        if isinstance(metric, ChecksDataset):
            yield from ((f"metrics.{name}", sentence) for sentence in metric.check_dataset(recipe.dataset))
        if isinstance(metric, ChecksEvaluation):
            others = [other for key, other in recipe.metrics.items() if key != name]
            found = metric.check_evaluation(recipe.evaluate.teacher, others)
            yield from ((f"metrics.{name}", sentence) for sentence in found)


def _chosen(recipe: Recipe, cards: tuple[EffectCard, ...]) -> tuple[tuple[EffectCard, ...], list[Finding]]:
    """The bank's effects that `effects:` names, in its order, and the names that the bank lacks."""
    if recipe.effects is None:
        return cards, []
    by_name = {card.name: card for card in cards}
    unknown = [name for name in recipe.effects if name not in by_name]
    findings = [
        ("effects", f"the bank has no effect {quoted(name)}{hint(name, by_name)}") for name in unknown[:MOST_TOLD]
    ]
    if len(unknown) > MOST_TOLD:
        findings.append(("effects", f"and {len(unknown) - MOST_TOLD:,} more that the bank does not have"))
    return tuple(by_name[name] for name in dict.fromkeys(recipe.effects) if name in by_name), findings


def _words(recipe: Recipe, cards: tuple[EffectCard, ...]) -> Iterable[Finding]:
    if isinstance(recipe.prompts, ChecksCards):
        tokens = recipe.backbone.tokens if isinstance(recipe.backbone, Tokenizes) else None
        yield from (("prompts", sentence) for sentence in recipe.prompts.check_cards(cards, tokens))


def _pictures(recipe: Recipe, cards: tuple[EffectCard, ...], general: Sequence[GeneralItem]) -> Iterable[Finding]:
    """No effects, effects without pictures, an empty general stream."""
    if recipe.effects == ():
        yield "effects", "it names no effect; leave it out to use all of the bank's"
    elif not cards and not recipe.effects:
        yield "teachers", "the bank has no effects"
    for card in cards:
        try:
            for split in ("train", "test"):
                if not recipe.dataset.sources(card.name, split):
                    yield "dataset", f"no {split} pictures for the effect {card.name}"
        except ValueError as error:
            yield "dataset", str(error)
    if not general:
        yield "dataset", "the general stream has no pictures"


def _sizes(recipe: Recipe) -> Iterable[Finding]:
    """Pictures that the backbone cannot take."""
    if isinstance(recipe.backbone, ChecksDataset):
        yield from (("dataset", sentence) for sentence in recipe.backbone.check_dataset(recipe.dataset))


def _routed(recipe: Recipe, cards: tuple[EffectCard, ...]) -> Iterable[Finding]:
    """Fewer teachers on the device than a batch follows, and losses that no row comes to."""
    if recipe.serve.adapter == "student":
        effects = [card.name for card in cards]
        problem = slots_problem(recipe, Draws(recipe.seed), effects)
        if problem is not None:
            yield "teacher.slots", problem
        yield from unfed_losses(recipe, effects)


def _names(recipe: Recipe) -> Iterable[Finding]:
    """A run whose name cannot be a folder's, a title that nothing can write."""
    problem = name_problem(recipe.name)
    if problem is not None:
        yield "name", f"the run's name {quoted(recipe.name)} {problem}"
    problem = text_problem(recipe.title)
    if problem is not None:
        yield "title", f"{quoted(recipe.title)} {problem}"


def _texts(cards: tuple[EffectCard, ...], general: Sequence[GeneralItem]) -> list[Finding]:
    """Names, prompts and instructions that nothing can be called, written or read; strengths that mean nothing."""
    return [*_card_texts(cards), *(("dataset", sentence) for sentence in instruction_problems(general))]


def _card_texts(cards: tuple[EffectCard, ...]) -> list[Finding]:
    return [("teachers", sentence) for sentence in [*card_problems(cards), *teacher_strengths(cards)]]


def _files(recipe: Recipe, files: Iterable[tuple[str, str, Path]], data: bool) -> Iterable[Finding]:
    """Teacher files (place, effect, file) that do not fit the backbone or hold numbers that are not finite."""
    shapes = recipe.backbone.shapes()
    for place, effect, file in files:
        told = check_lora(file, shapes, data=data)
        if len(told) > MOST_OF_A_FILE:  # a file of two formats has one for each of a thousand factors
            more = len(told) - MOST_OF_A_FILE
            told = [*told[:MOST_OF_A_FILE], f"{file}: {more} more; `clora inspect` with --modules tells them all"]
        yield from ((place, f"{escaped(effect[:QUOTED])}: {sentence}") for sentence in told)

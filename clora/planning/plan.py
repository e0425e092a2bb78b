"""Recipe -> Plan: all that can fail early fails here, all at once, before any model is loaded."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from clora.config.checks import schedule_misfits
from clora.config.problems import Problem, RecipeError
from clora.config.resolved import digest as digest_of_tree
from clora.contracts.backbone import Tokenizes, TokenShift
from clora.contracts.data import ListsPictures, PictureRow
from clora.contracts.method import ChecksCards
from clora.contracts.values import EffectCard, GeneralItem, Prompts
from clora.diffusion.flow import Schedule
from clora.diffusion.rng import StepRng
from clora.errors import CloraError, hint, quoted
from clora.planning.components import (
    Finding,
    checked,
    components,
    doubted,
    incomplete,
    metric_findings,
    objective_findings,
    picture_findings,
)
from clora.planning.export_files import WEIGHTS, collisions, files_of
from clora.planning.exported_lora import exported_lora
from clora.planning.extension import finished_effects, mixed, start_digest, start_problems
from clora.planning.numbers import number_findings, size_findings, teacher_strengths, unfed_losses
from clora.planning.observers import Observed, observed
from clora.planning.optimizers import optimizer_doubts, optimizer_findings
from clora.planning.report_files import report_file_findings
from clora.planning.shift import shift_of, told
from clora.planning.teacher_files import banks_of, file_findings, layouts_code, lora_files
from clora.planning.teacher_schedule import slots_problem
from clora.planning.texts import MOST_TOLD, card_problems, instruction_problems, prompts_of
from clora.plugin_system.guard import Owners, sentences
from clora.runs.run_dir import digest_of
from clora.training.warm_recipe import decides, warm_start_doubts, warm_start_problems

if TYPE_CHECKING:
    from clora.config.load import LoadedRecipe
    from clora.config.schema import Recipe
    from clora.contracts.export import ExportedLora
    from clora.contracts.run import SampleRequest


@frozen
class Plan:
    """A recipe that has been checked: its effects with their words, and the hash of all that decides its outcome."""

    recipe: Recipe  # with the number that its `student.shift: null` stands for, which text and digest have too
    digest: str
    text: str  # the resolved recipe as YAML
    cards: tuple[EffectCard, ...]
    prompts: Mapping[str, Prompts]
    mix: tuple[str, ...]  # the effects as the router draws them evenly: once each, or more often to weigh more
    warnings: tuple[str, ...] = ()  # what is doubtful and refuses nothing, each with its place, as `RecipeError` has it
    schedule: str = ""  # the few steps in one line: their shift, what it follows from, the levels
    warm: str = ""  # the hash of all that decides the warm start
    owners: Owners = field(factory=Owners)  # whose the recipe's components are
    #: by the place of a component or a LoRA layout that is used: distribution, version, hash of its source
    code: Mapping[str, str] = field(factory=dict)
    exporters_digest: str = ""  # the hash of all that decides what exporters add, but for LoRA and evaluation
    samples: Mapping[str, SampleRequest] = field(factory=dict)  # the pictures that observers are given, by their names
    reporters_digest: str = ""  # the hash of the reporters

    def sources(self, effect: str) -> tuple[str, ...]:
        """The training pictures of an effect that the run uses."""
        return tuple(self.recipe.dataset.sources(effect, "train")[: self.recipe.prepare.train_images])

    def general(self) -> Sequence[GeneralItem]:
        """The general stream's training pictures that the run uses: the same draw for every run, in their order."""
        items = self.recipe.dataset.general("train")
        most = self.recipe.prepare.general_images
        if most is None or most >= len(items):
            return items
        return [items[i] for i in sorted(StepRng(0).python("prepare/general").sample(range(len(items)), most))]

    def exported(self, path: Path) -> ExportedLora:
        """What the run's LoRA at `path` is told to be in its header and to exporters."""
        return exported_lora(self.recipe, self.digest, self.cards, self.prompts, path)

    def pictures(self) -> Sequence[PictureRow]:
        """The rows of pictures that are files, of the effects in use and the general stream: dataset's and banks'."""
        parts = [self.recipe.dataset, *banks_of(self.recipe).values()]
        rows = (row for part in parts if isinstance(part, ListsPictures) for row in part.pictures())
        return [row for row in rows if not row.effect or row.effect in self.prompts]


#: where these are wrong nothing can be said of effects and pictures
_SUBJECT = frozenset(("backbone", "dataset", "teachers", "prompts", "start"))
MOST_WARNINGS = 20  # told of one place of the recipe


def make_plan(loaded: LoadedRecipe, *, thorough: bool = True) -> Plan:
    """Check everything that needs no model and return the plan; unless `thorough`, teachers' headers alone are read.

    Raises RecipeError with every problem found, each at the line that names the part it concerns.
    """
    recipe = loaded.recipe
    if lacking := incomplete(recipe):
        raise _refusal(loaded, lacking)
    problems = [(place, sentence) for place, part in components(recipe) for sentence in checked(part)]
    doubts: list[Finding] = []
    problems += [*objective_findings(recipe), *size_findings(recipe), *metric_findings(recipe)]
    problems += report_file_findings(recipe.reporters)
    if "optimizer" not in {place for place, _ in problems}:
        problems += optimizer_findings(recipe, loaded.owners)
    cards: tuple[EffectCard, ...] = ()
    wrong = {place.split(".")[0] for place, _ in problems}
    few: TokenShift | None = None
    watching = Observed({}, ())
    if wrong.isdisjoint(("backbone", "dataset")):
        few, unfit = _few_steps(recipe)
        problems += unfit
    if _SUBJECT.isdisjoint(wrong):
        cards, unknown = _chosen(recipe, _all_cards(recipe))
        general = recipe.dataset.general("train")
        texts = _texts(cards, general)
        problems += [*unknown, *(texts or [*_words(recipe, cards), *_pictures(recipe, cards, general)])]
        watching = observed(recipe, [card.name for card in cards])
        problems += watching.findings if not unknown else ()
        if cards and "warm_start" not in wrong:
            problems += _warm_start(recipe, cards, loaded.owners)
    if "backbone" not in wrong:
        problems += number_findings(recipe)
        wrong_files, doubts = file_findings(recipe, lora_files(recipe, {place for place, _ in problems}), thorough)
        problems += wrong_files
    if _SUBJECT.isdisjoint(wrong):
        problems += _start(recipe, cards) if thorough else ()
        problems += [*_routed(recipe, cards, loaded.owners), *picture_findings(recipe)] if not problems else ()
    if problems:
        raise _refusal(loaded, problems)
    assert few is not None  # else there is a problem
    recipe = evolve(recipe, student=evolve(recipe.student, shift=few.shift))
    loaded, schedule = loaded.having(recipe, layouts_code(recipe)), told(few, recipe.student.steps)
    prompts = {card.name: prompts_of(recipe.prompts, card, loaded.owners) for card in cards}
    of_warm_start = digest_of_tree(loaded.tree, loaded.code, decides(recipe))
    digest, warm = (_digest(each, cards, prompts) for each in (loaded.digest, of_warm_start))
    warnings = (*map(str, loaded.doubts), *_told(loaded, [*_warnings(recipe), *doubts])) if thorough else ()
    mix = tuple(prompts)
    if recipe.start is not None and thorough:  # else a finished extension is used without the run that it began from
        mix = mixed(mix, finished_effects(recipe.start.run), recipe.start.replay)
        digest = digest_of([digest, start_digest(recipe.start)])
    of_exporters = digest_of_tree(loaded.tree, loaded.code, lambda path: path[0] == "exporters")
    exporters = digest_of([digest, recipe.title or recipe.name, of_exporters])
    text, owners, code, samples = loaded.resolved_yaml(), loaded.owners, loaded.code, watching.requests
    reporters = digest_of_tree(loaded.tree, loaded.code, lambda path: path[0] == "reporters")
    beside = (warnings, schedule, warm, owners, code, exporters, samples, reporters)
    plan = Plan(recipe, digest, text, cards, prompts, mix, *beside)
    if thorough and (colliding := _exported(plan)):
        raise _refusal(loaded, colliding)
    return plan


def _exported(plan: Plan) -> list[Finding]:
    """Exporters whose files have the same name. Raises ComponentError for one that raises or gives what is no file."""
    if plan.recipe.serve.adapter == "teachers":
        return []
    return list(collisions(files_of(plan.recipe.exporters, plan.owners, plan.exported(Path(WEIGHTS)))))


def run_digest(loaded: LoadedRecipe) -> str:
    """The digest of the run of a recipe, without a plan's checks. Raises CloraError where it cannot be known."""
    recipe = loaded.recipe
    if lacking := incomplete(recipe):
        raise _refusal(loaded, lacking)
    few = shift_of(recipe.student, recipe.backbone, recipe.dataset)
    loaded = loaded.having(evolve(recipe, student=evolve(recipe.student, shift=few.shift)), layouts_code(recipe))
    cards, unknown = _chosen(recipe, _all_cards(recipe))
    if unknown:
        raise _refusal(loaded, unknown)
    digest = _digest(loaded.digest, cards, {c.name: prompts_of(recipe.prompts, c, loaded.owners) for c in cards})
    return digest if recipe.start is None else digest_of([digest, start_digest(recipe.start)])


def _refusal(loaded: LoadedRecipe, problems: Iterable[Finding]) -> RecipeError:
    return RecipeError(Problem(loaded.mark_of(place), f"{place}: {sentence}") for place, sentence in problems)


def _few_steps(recipe: Recipe) -> tuple[TokenShift | None, list[Finding]]:
    """The shift of the few-step schedule, and what the simulations find wrong with the schedule."""
    try:
        few = shift_of(recipe.student, recipe.backbone, recipe.dataset)
    except CloraError as error:
        return None, [("student.shift", str(error))]
    levels = Schedule.shifted(recipe.student.steps, few.shift)
    return few, [
        (f"simulations.{name}", sentence)
        for name, simulation in recipe.simulations.items()
        for sentence in schedule_misfits(simulation, levels)
    ]


def _warnings(recipe: Recipe) -> Iterable[Finding]:
    """What is doubtful in a recipe without mistakes: what its components say, and a warm start longer than the run."""
    yield from doubted(recipe)
    yield from optimizer_doubts(recipe)
    yield from (("warm_start.updates", sentence) for sentence in warm_start_doubts(recipe))


def _told(loaded: LoadedRecipe, findings: Iterable[Finding]) -> tuple[str, ...]:
    """Findings as lines with file, line and column, each once, in their order, bounded at every place."""
    places: dict[str, dict[str, None]] = {}
    for place, sentence in findings:
        places.setdefault(place, {})[sentence] = None
    lines: list[str] = []
    for place, found in places.items():
        told = list(found)
        if len(told) > MOST_WARNINGS:
            told = [*told[:MOST_WARNINGS], f"{len(told) - MOST_WARNINGS:,} more warnings like these"]
        lines += [str(Problem(loaded.mark_of(place), f"{place}: {sentence}")) for sentence in told]
    return tuple(lines)


def _digest(recipe: str, cards: tuple[EffectCard, ...], prompts: Mapping[str, Prompts]) -> str:
    """A recipe's hash with the bank's words and strengths, which stand in files of their own that people edit."""
    words = [(card.name, *card.strengths(), prompts[card.name].student, prompts[card.name].teacher) for card in cards]
    return blake2b(json.dumps([recipe, words]).encode(), digest_size=16).hexdigest()


def _all_cards(recipe: Recipe) -> tuple[EffectCard, ...]:
    """The effects of the recipe's own bank and of those that an extension adds."""
    return tuple(card for bank in banks_of(recipe).values() for card in bank.cards())


def _start(recipe: Recipe, cards: tuple[EffectCard, ...]) -> Iterable[Finding]:
    """An extension of a run that cannot be extended so."""
    if recipe.start is None:
        return
    prompts = {card.name: recipe.prompts.effect(card) for card in cards}
    yield from (("start.run", sentence) for sentence in start_problems(recipe.start, prompts))


def _warm_start(recipe: Recipe, cards: tuple[EffectCard, ...], owners: Owners) -> Iterable[Finding]:
    """A warm start that teaches nothing, or does not belong to this run."""
    effects = tuple(card.name for card in cards)
    yield from (
        ("warm_start", sentence) for sentence in warm_start_problems(recipe, effects, owners.within("warm_start"))
    )


def checked_cards(recipe: Recipe, places: Collection[str]) -> tuple[tuple[EffectCard, ...], list[Finding]]:
    """The recipe's effects for work that needs no whole plan, and the mistakes in the components at `places`."""
    findings = [
        (place, sentence) for place, part in components(recipe) if place in places for sentence in checked(part)
    ]
    if findings:
        return (), findings
    cards, unknown = _chosen(recipe, _all_cards(recipe))
    return cards, [*unknown, *_card_texts(cards)]


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
        found = sentences("check_cards", partial(recipe.prompts.check_cards, cards, tokens))
        yield from (("prompts", sentence) for sentence in found)


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


def _routed(recipe: Recipe, cards: tuple[EffectCard, ...], owners: Owners) -> Iterable[Finding]:
    """Fewer teachers on the device than a batch follows, and losses that no row comes to."""
    if recipe.serve.adapter == "student":
        effects = [card.name for card in cards]
        problem = slots_problem(recipe, StepRng(recipe.seed), effects, owners)
        if problem is not None:
            yield "teacher.slots", problem
        yield from unfed_losses(recipe, effects, owners)


def _texts(cards: tuple[EffectCard, ...], general: Sequence[GeneralItem]) -> list[Finding]:
    """Names, prompts and instructions that nothing can be called, written or read; strengths that mean nothing."""
    return [*_card_texts(cards), *(("dataset", sentence) for sentence in instruction_problems(general))]


def _card_texts(cards: tuple[EffectCard, ...]) -> list[Finding]:
    return [("teachers", sentence) for sentence in [*card_problems(cards), *teacher_strengths(cards)]]

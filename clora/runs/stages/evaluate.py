"""Evaluate: test pictures from the exported file, read back from disk, and the recipe's metrics over them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import frozen

from clora.adapters.adapter import stack
from clora.adapters.converted_teachers import teacher_digest
from clora.contracts.data import DrawsTruth, Truth
from clora.contracts.evaluation import EffectPictures, Evaluation, GeneralPictures
from clora.diffusion.rng import StepRng
from clora.inference.edit_sampler import EditSampler
from clora.inference.session import ModelSession, read_adapter
from clora.process.stopping import during
from clora.runs.files.results import Results
from clora.runs.files.tensors import kept_tensors, write_tensors
from clora.runs.run_dir import RunDir, digest_file, digest_of, digest_tensor
from clora.runs.stages.measuring import measure

if TYPE_CHECKING:
    from clora.contracts.values import EffectCard, GeneralItem
    from clora.inference.conditioning import Condition
    from clora.planning.plan import Plan

#: how many pictures that an effect with chance may make are drawn anew for the metrics
DRAWS = 4


@frozen
class Served:
    """The adapters that answer requests: one name per effect, one for general instructions (None: the bare base)."""

    effect: dict[str, str]
    general: str | None


def load_served(plan: Plan, session: ModelSession, folder: RunDir, plus: Path | None) -> Served:
    """Put what the run serves on the base, read from its files; `plus` is a LoRA added to all of it."""
    extra = None if plus is None else read_adapter(session, plus)
    if plan.recipe.serve.adapter == "teachers":
        if extra is None:
            return Served({card.name: card.name for card in plan.cards}, None)
        session.adapted.add("plus", extra)
        return Served({card.name: f"{card.name}+plus" for card in plan.cards}, "plus")
    served = read_adapter(session, folder.lora)
    session.adapted.add("served", served if extra is None else stack(served, extra))
    return Served({card.name: "served" for card in plan.cards}, "served")


@during("while evaluating", "everything up to the export is kept, and the pictures made so far")
def evaluate(
    plan: Plan, session: ModelSession, folder: RunDir, plus: Path | None, tell: Callable[[str], None]
) -> tuple[Evaluation, Results]:
    """Make the pictures, measure, write `evaluate/`; returns both."""
    recipe = plan.recipe
    served = load_served(plan, session, folder, plus)
    files = [file for file in (folder.lora, plus) if file is not None and file.exists()]
    maker = Maker(plan, session, served, folder, digest_of([digest_file(file) for file in files]))
    effects = []
    for i, card in enumerate(plan.cards):
        tell(f"evaluate {i + 1}/{len(plan.cards)}: {card.name}")
        effects.append(maker.effect(card))
    general = maker.general() if recipe.evaluate.general_images else None
    evaluation = Evaluation(effects, general)
    write_tensors(folder.pictures, to_tensors(evaluation))  # before a metric has a chance to fail
    results = Results(nfe=nfe(plan), pictures={effect.effect: effect.names for effect in effects})
    results, shown = measure(plan, evaluation, results, tell)
    folder.metric_pictures.unlink(missing_ok=True)
    if shown:
        write_tensors(folder.metric_pictures, {name: to_uint8(pictures) for name, pictures in shown.items()})
    folder.write_results(results)
    shutil.rmtree(maker.parts, ignore_errors=True)
    return evaluation, results


def conditions_of_evaluation(plan: Plan) -> Iterator[Condition]:
    """What the pictures below are made from."""
    recipe = plan.recipe
    for card in plan.cards:
        words = plan.prompts[card.name]
        prompts = {words.student if recipe.serve.prompts == "student" else words.teacher}
        if recipe.evaluate.teacher:
            prompts |= {card.teacher_prompt, ""}
        if recipe.serve.sampler == "teacher":
            prompts.add("")
        for name in recipe.dataset.sources(card.name, "test")[: recipe.evaluate.images]:
            yield from ((prompt, name) for prompt in sorted(prompts))
    for item in general_items(plan):
        yield from ((item.instruction, item.source), ("", item.source))


def nfe(plan: Plan) -> str:
    """Network evaluations per picture, as the paper's tables write them: 8, or 40x2 with guidance."""
    if plan.recipe.serve.sampler == "few_step":
        return str(plan.recipe.student.steps)
    teacher = plan.recipe.teacher
    return f"{teacher.steps}" if teacher.guidance_scale == 1.0 else f"{teacher.steps}x2"


class Maker:
    """Makes the evaluation's pictures, each effect's once; the teachers' and the base's are shared by runs.

    `weights` is a hash of the files that are served.
    """

    def __init__(self, plan: Plan, session: ModelSession, served: Served, folder: RunDir, weights: str) -> None:
        self.weights = weights
        self.parts = folder.pictures.parent / "parts"  # what an interrupted evaluation has made
        self.plan = plan
        self.session = session
        self.served = served
        self.folder = folder
        self.sampler = EditSampler(plan, session)
        self.rng = StepRng(0).named("evaluate")  # the same noise for every run: differences come from the model

    @property
    def _samples_as_teachers(self) -> bool:
        return self.plan.recipe.serve.sampler == "teacher"

    def effect(self, card: EffectCard) -> EffectPictures:
        """One effect's test pictures."""
        recipe = self.plan.recipe
        names = tuple(recipe.dataset.sources(card.name, "test")[: recipe.evaluate.images])
        source = self._sources(card.name, names)
        rng = self.rng.named(card.name)
        words = self.plan.prompts[card.name]
        prompt = words.student if recipe.serve.prompts == "student" else words.teacher
        teacher = None
        if recipe.evaluate.teacher:
            teacher = self._reference(
                card.name,
                card.name,
                [card.teacher_prompt] * len(names),
                names,
                rng,
                teacher_digest(card.lora, recipe.backbone.shapes(), self.folder.cache),
            )
        served = self.served.effect[card.name]
        if teacher is not None and self._samples_as_teachers and (served, prompt) == (card.name, card.teacher_prompt):
            student = teacher  # what is served is the teacher itself: the same pictures to the last digit
        else:
            with self._standing(card, served):
                student = self._sample(card.name, served, [prompt] * len(names), names, rng)
        truths: dict[str, torch.Tensor] = {}
        if isinstance(recipe.dataset, Truth):
            truths = {other.name: recipe.dataset.truth(other.name, names) for other in self.plan.cards}
        draws = None
        if isinstance(recipe.dataset, DrawsTruth):
            draws = recipe.dataset.draws(card.name, names, DRAWS)
        return EffectPictures(
            effect=card.name,
            names=names,
            source=source,
            student=student,
            teacher=teacher,
            truths=truths,
            draws=draws,
        )

    def general(self) -> GeneralPictures:
        """Test pictures of the general stream."""
        recipe = self.plan.recipe
        items = general_items(self.plan)
        names, instructions = [item.source for item in items], [item.instruction for item in items]
        rng = self.rng.named("general")
        source = self._sources("general", names)
        truth = recipe.dataset.general_truth(items) if isinstance(recipe.dataset, Truth) else None
        base = self._reference("general", None, instructions, names, rng, "")
        bare = self._samples_as_teachers and self.served.general is None
        return GeneralPictures(
            instructions=tuple(instructions),
            source=source,
            student=base if bare else self._sample("general", self.served.general, instructions, names, rng),
            base=base,
            truth=truth,
        )

    @contextmanager
    def _standing(self, card: EffectCard, served: str) -> Iterator[None]:
        """Within it a teacher stands on the base together with what is added to it; others are there when asked for."""
        if served != f"{card.name}+plus":
            yield
            return
        adapted = self.session.adapted
        with self.session.teachers.held([card.name]):
            adapted.add(served, stack(adapted.adapters[card.name], adapted.adapters["plus"]))
        try:
            yield
        finally:
            adapted.remove(served)

    def _sources(self, label: str, names: Sequence[str]) -> torch.Tensor:
        images = self.plan.recipe.dataset.images(names)
        return _kept(self.parts / f"{label}-sources-{digest_tensor(images)}.safetensors", lambda: images)

    def _sample(
        self, label: str, adapter: str | None, prompts: Sequence[str], names: Sequence[str], rng: StepRng
    ) -> torch.Tensor:
        """What is served, from this run's own parts where an interrupted evaluation has left it."""
        sample = self.sampler.teacher if self._samples_as_teachers else self.sampler.few_step
        recipe = self.plan.recipe
        pictures = digest_tensor(recipe.dataset.images(names))
        key = digest_of([self.plan.digest, self.weights, adapter, list(prompts), pictures])
        return _kept(self.parts / f"{label}-{key}.safetensors", lambda: sample(adapter, prompts, names, rng))

    def _reference(
        self, label: str, adapter: str | None, prompts: Sequence[str], names: Sequence[str], rng: StepRng, weights: str
    ) -> torch.Tensor:
        """A teacher's or the base's pictures, from the cache where they are there."""
        recipe = self.plan.recipe
        pictures = digest_tensor(recipe.dataset.images(names))
        key = digest_of([recipe.backbone.digest(), weights, list(prompts), pictures, recipe.teacher.sampling()])
        path = self.folder.cache / "references" / f"{label}-{key}.safetensors"
        return _kept(path, lambda: self.sampler.teacher(adapter, prompts, names, rng))


def _kept(path: Path, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The pictures of a file, made and written where it is not there or damaged, which is told.

    They stay in the file, mapped: fifty effects at 1024 x 1024 are more than many a machine's memory.
    """
    return kept_tensors(path, lambda: {"pictures": make().contiguous()})["pictures"]


def general_items(plan: Plan) -> list[GeneralItem]:
    """The general test items of the evaluation: the same draw for every run."""
    items = plan.recipe.dataset.general("test")
    count = min(len(items), plan.recipe.evaluate.general_images)
    return [items[i] for i in StepRng(0).python("evaluate/general").sample(range(len(items)), count)]


def to_tensors(evaluation: Evaluation) -> dict[str, torch.Tensor]:
    """Every picture of an evaluation as uint8, by dotted name."""
    tensors: dict[str, torch.Tensor] = {}
    for part in evaluation.effects:
        tensors |= {f"{part.effect}.source": part.source, f"{part.effect}.student": part.student}
        if part.teacher is not None:
            tensors[f"{part.effect}.teacher"] = part.teacher
        if part.effect in part.truths:
            tensors[f"{part.effect}.truth"] = part.truths[part.effect]
    if evaluation.general is not None:
        general = evaluation.general
        tensors |= {"general.source": general.source, "general.student": general.student, "general.base": general.base}
        if general.truth is not None:
            tensors["general.truth"] = general.truth
    return {name: to_uint8(pictures) for name, pictures in tensors.items()}


def to_uint8(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures of any type in [-1, 1] as uint8; what is no number becomes black, uint8 stays as it is."""
    if pictures.dtype == torch.uint8:
        return pictures.contiguous()
    finite = pictures.float().nan_to_num(nan=-1.0)
    return ((finite + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).contiguous()

"""Makes pictures as a user of the result would: served adapters, their prompts, their sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from clora.contracts.loaded_backbone import Guides, KnowsSchedule
from clora.diffusion.flow import Schedule, guide
from clora.diffusion.rng import Normal, RowDraws, StepRng
from clora.diffusion.sampling import Velocity, euler, few_step
from clora.errors import CloraError
from clora.inference.composition import chain
from clora.inference.session import ModelSession, read_adapter
from clora.planning.shift import few_steps
from clora.runs.run_dir import digest_tensor

if TYPE_CHECKING:
    from clora.contracts.values import Conditions
    from clora.inference.conditioning import Conditioning
    from clora.planning.plan import Plan
    from clora.runs.run_dir import RunDir

#: (prompts [B], picture names [B], draws) -> latents [B, C, h, w]
Sample = Callable[[Sequence[str], Sequence[str], Normal], torch.Tensor]


def _like(conditions: Conditions) -> torch.Tensor:
    """An empty float32 batch that samplers take shape and device from: an edit is as large as its source."""
    return torch.empty_like(conditions.source, dtype=torch.float32)


class EditSampler:
    """Samples from adapters that stand on the base of a session; every call's noise comes from its rng.

    Words and pictures are encoded through `conditioning`, the session's own unless another is given.
    """

    def __init__(self, plan: Plan, session: ModelSession, conditioning: Conditioning | None = None) -> None:
        self.plan = plan
        self.session = session
        self.conditioning = session.conditioning if conditioning is None else conditioning

    def few_step(
        self, adapter: str | None, prompts: Sequence[str], sources: Sequence[str], rng: StepRng
    ) -> torch.Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] in the student's few steps without guidance."""
        schedule = few_steps(self.plan.recipe)

        def sample(prompts: Sequence[str], sources: Sequence[str], rng: Normal) -> torch.Tensor:
            conditions = self.conditioning.conditions(prompts, sources)
            return few_step(self._velocity(adapter, conditions), _like(conditions), schedule, rng)

        return self._in_batches(sample, prompts, sources, rng)

    def in_passes(
        self, adapter: str | None, prompts: Sequence[str], sources: Sequence[str], rng: StepRng
    ) -> torch.Tensor:
        """Pictures [B, 3, H, W] edited by one prompt after the other, each from the picture before: a sampling each."""
        names = list(sources)
        made = self.conditioning.images(names)
        for number, prompt in enumerate(prompts):
            made = self.few_step(adapter, [prompt] * len(names), names, rng.named(f"pass {number}"))
            # by their content: the world keeps what it encoded under a picture's name
            names = [digest_tensor(picture) for picture in made]
            self.conditioning.pictures |= dict(zip(names, made, strict=True))
        return made

    def teacher(
        self, adapter: str | None, prompts: Sequence[str], sources: Sequence[str], rng: StepRng
    ) -> torch.Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] in the teacher's many guided steps."""
        return self._in_batches(self._teacher_sample(adapter), prompts, sources, rng)

    @torch.no_grad()
    def teacher_latents(
        self, adapter: str | None, prompts: Sequence[str], sources: Sequence[str], rng: Sequence[StepRng]
    ) -> torch.Tensor:
        """The same as latents [B, C, h, w], undecoded and in one batch: what training aims at.

        Every row has draws of its own, so that its noise does not depend on the rows beside it.
        """
        return self._teacher_sample(adapter)(prompts, sources, RowDraws(tuple(rng))).cpu()

    def _teacher_sample(self, adapter: str | None) -> Sample:
        how, backbone = self.plan.recipe.teacher, self.session.backbone
        guided = backbone.guide if isinstance(backbone, Guides) else guide

        def sample(prompts: Sequence[str], sources: Sequence[str], rng: Normal) -> torch.Tensor:
            conditions = self.conditioning.conditions(prompts, sources)
            conditional, empty, like = self._velocity(adapter, conditions), None, _like(conditions)
            if how.guidance_scale != 1.0:
                without = self.conditioning.conditions([""] * len(sources), sources)
                empty = self._velocity(adapter, without)
            return euler(conditional, empty, like, self._teacher_schedule(like), how.guidance_scale, rng, guided)

        return sample

    def _teacher_schedule(self, like: torch.Tensor) -> Schedule:
        """The recipe's shifted levels, or, with `teacher.shift: null`, those of the model's own scheduler."""
        how, backbone = self.plan.recipe.teacher, self.session.backbone
        if how.shift is not None:
            return Schedule.shifted(how.steps, how.shift)
        if not isinstance(backbone, KnowsSchedule):
            raise CloraError("teacher.shift: null asks for the model's own noise levels, but this backbone has none")
        return backbone.schedule(how.steps, like)

    def _velocity(self, adapter: str | None, conditions: Conditions) -> Velocity:
        def velocity(x_sigma: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            with self.session.adapted.rows([adapter] * len(x_sigma)):
                return self.session.backbone.velocity(x_sigma, sigma, conditions)

        return velocity

    @torch.no_grad()
    def _in_batches(self, sample: Sample, prompts: Sequence[str], sources: Sequence[str], rng: StepRng) -> torch.Tensor:
        size = self.plan.recipe.evaluate.batch_size
        made = []
        for start in range(0, len(sources), size):
            part = slice(start, start + size)
            latents = sample(prompts[part], sources[part], rng.named(str(start)))
            made.append(self.session.backbone.decode(latents).cpu())
        return torch.cat(made)


class Editor:
    """Edits pictures with a run's exported LoRA; the model is loaded with the first one and stays.

    Raises CloraError where the LoRA is not as the run wrote it.
    """

    def __init__(self, plan: Plan, folder: RunDir) -> None:
        self.plan = plan
        self.session = ModelSession(plan)
        self.folder = folder
        self.served = False

    def edit(
        self,
        effects: Sequence[str],
        instruction: str | None,
        picture: torch.Tensor,
        seed: int,
        *,
        passes: bool = False,
    ) -> torch.Tensor:
        """One picture [1, 3, H, W] edited, [3, h, w] in [-1, 1] at the model's own size.

        Several effects are one instruction, or, with `passes`, one sampling after the other.
        """
        session = self.session
        fitted = session.backbone.fit(picture)[0]
        name = digest_tensor(fitted)  # by its content: the world keeps what it encoded under a picture's name
        session.conditioning.pictures[name] = fitted
        words = [instruction] if instruction is not None else [self.plan.prompts[name].student for name in effects]
        rng = StepRng(seed).named("sample")
        words = words if passes else [chain(words)]
        session.conditioning.conditions(words[:1], [name])  # encoded before the transformer takes the room
        if not self.served:
            session.adapted.add("served", read_adapter(session, self.folder.check_lora()))
            self.served = True
        sampler = EditSampler(self.plan, session)
        if passes:
            return sampler.in_passes("served", words, [name], rng)[0]
        return sampler.few_step("served", words, [name], rng)[0]
